//! `outgoing-handler.handle` and `future-incoming-response`, in place of wasmtime's implementation.
//!
//! Wasmtime spawns two tasks for each request. When both are ready, tokio wakes another thread for
//! one of them, which is most of the cost of a small request. Here the task of the call drives its
//! requests.

use super::{Outgoing, ResponseResult};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use wasmtime::Result;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::p2::{Pollable, subscribe};
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, HostOutgoingRequest as _};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p2::{HttpResult, http_request_error};
use wasmtime_wasi_http::{FieldMap, WasiBody, WasiHttp, WasiHttpCtxView, WasiHttpHooks as _, WasiHttpView};

/// The most bytes of the method, the scheme or the authority of a request. A name in DNS has up to
/// 253.
const MAX_NAME: usize = 512;
/// The most bytes of the path and query of a request.
const MAX_PATH: usize = 8 << 10;
/// The most bytes of the headers of a request, with what the host needs for each.
pub(crate) const MAX_HEADERS: usize = 4 << 10;

/// The part of a store's data that `wasi:http` needs.
pub(crate) trait View: WasiHttpView {
    /// Returns the component's requests and its resource table.
    fn outgoing(&mut self) -> (&mut Outgoing, &mut ResourceTable);
}

/// Links `wasi:http`: wasmtime's, except for `handle` and the future that it returns.
pub(crate) fn add_to_linker<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    let options = types::LinkOptions::default();
    types::add_to_linker::<T, WasiHttp>(linker, &options, T::http)?;
    linker.allow_shadowing(true);
    // The version must be that of wasmtime's interfaces. With another, this would replace nothing,
    // and `handle` would return a resource that no function takes. Then components fail to load.
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.resource("future-incoming-response", ResourceType::host::<FutureResponse>(), |mut store, handle| {
        store.data_mut().http().table.delete(Resource::<FutureResponse>::new_own(handle))?;
        Ok(())
    })?;
    limit_lengths(&mut types)?;
    types.func_wrap("[method]future-incoming-response.subscribe", |mut store, (future,): (Resource<FutureResponse>,)| {
        Ok((subscribe(store.data_mut().http().table, future)?,))
    })?;
    types.func_wrap("[method]future-incoming-response.get", |mut store, (future,): (Resource<FutureResponse>,)| {
        Ok((get(store.data_mut().http(), &future)?,))
    })?;
    linker.allow_shadowing(false);
    type HandleParams = (Resource<HostOutgoingRequest>, Option<Resource<types::RequestOptions>>);
    // Timeouts in the request options are ignored: the plugin sets none, and has its own deadline
    // for the whole call.
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap("handle", |mut store, (request, _): HandleParams| {
        let (outgoing, table) = store.data_mut().outgoing();
        Ok((match handle(outgoing, table, request) {
            Ok(future) => Ok(future),
            Err(error) => Err(error.downcast()?),
        },))
    })
}

/// Replaces the functions that set the parts of a request: parts that are too long are refused, since
/// the host keeps them for each request that the component has.
fn limit_lengths<T: View + 'static>(types: &mut LinkerInstance<'_, T>) -> Result<()> {
    type Request = Resource<HostOutgoingRequest>;
    let fits = |part: Option<&String>, length| part.is_none_or(|part| part.len() <= length);
    types.func_wrap("[method]outgoing-request.set-method", move |mut store, (request, method): (Request, types::Method)| {
        let name = if let types::Method::Other(name) = &method { Some(name) } else { None };
        let fits = fits(name, MAX_NAME);
        Ok((if fits { store.data_mut().http().set_method(request, method)? } else { Err(()) },))
    })?;
    types.func_wrap(
        "[method]outgoing-request.set-scheme",
        move |mut store, (request, scheme): (Request, Option<types::Scheme>)| {
            let name = if let Some(types::Scheme::Other(name)) = &scheme { Some(name) } else { None };
            let fits = fits(name, MAX_NAME);
            Ok((if fits { store.data_mut().http().set_scheme(request, scheme)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        move |mut store, (request, authority): (Request, Option<String>)| {
            let fits = fits(authority.as_ref(), MAX_NAME);
            Ok((if fits { store.data_mut().http().set_authority(request, authority)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        move |mut store, (request, path): (Request, Option<String>)| {
            let fits = fits(path.as_ref(), MAX_PATH);
            Ok((if fits { store.data_mut().http().set_path_with_query(request, path)? } else { Err(()) },))
        },
    )
}

/// Sends a request, and returns the future of its response.
///
/// # Errors
///
/// Fails if the request is invalid, or the resource table is full.
pub(super) fn handle(
    outgoing: &mut Outgoing,
    table: &mut ResourceTable,
    request: Resource<HostOutgoingRequest>,
) -> HttpResult<Resource<FutureResponse>> {
    let request = into_hyper(outgoing, table.delete(request)?)?;
    let future = FutureResponse(Arc::new(Mutex::new(Progress::Pending(outgoing.send(request)))));
    lock(&outgoing.requests.0).push(Arc::downgrade(&future.0));
    Ok(table.push(future)?)
}

/// Converts the component's request into one for hyper.
///
/// # Errors
///
/// Fails if the method, scheme, authority, path or body is invalid.
fn into_hyper(outgoing: &mut Outgoing, request: HostOutgoingRequest) -> HttpResult<Request<WasiBody>> {
    let HostOutgoingRequest { method, scheme, authority, path_with_query, headers, body } = request;
    let method = match method {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        types::Method::Put => Method::PUT,
        types::Method::Delete => Method::DELETE,
        types::Method::Connect => Method::CONNECT,
        types::Method::Options => Method::OPTIONS,
        types::Method::Trace => Method::TRACE,
        types::Method::Patch => Method::PATCH,
        types::Method::Other(name) => Method::from_bytes(name.as_bytes()).map_err(|_| ErrorCode::HttpRequestMethodInvalid)?,
    };
    let scheme = match scheme {
        Some(types::Scheme::Http) => Scheme::HTTP,
        None | Some(types::Scheme::Https) => Scheme::HTTPS,
        Some(types::Scheme::Other(name)) => Scheme::try_from(name.as_str()).map_err(|_| ErrorCode::HttpProtocolError)?,
    };
    if !outgoing.is_supported_scheme(&scheme) {
        return Err(ErrorCode::HttpProtocolError.into());
    }
    let authority = authority.unwrap_or_default();
    let mut uri = Uri::builder().scheme(scheme).authority(authority.as_str());
    if let Some(path_with_query) = path_with_query {
        uri = uri.path_and_query(path_with_query);
    }
    let uri = uri.build().map_err(http_request_error)?;
    // `Host` is the authority as the component wrote it.
    let host = HeaderValue::try_from(authority).map_err(|error| http_request_error(error.into()))?;
    // The length of an existing body was checked when the body was written.
    if body.is_none() && headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err(ErrorCode::HttpRequestBodySize(Some(0)).into());
    }
    let body = body.unwrap_or_else(|| Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    // RFC 9110 asks for `Host` first. Among the component's own headers it is forbidden.
    request.headers_mut().insert(HOST, host);
    request.headers_mut().extend(HeaderMap::from(headers));
    Ok(request)
}

type GetResult = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;

/// Implements `future-incoming-response.get`: the response, if it has arrived and was not taken
/// before.
///
/// # Errors
///
/// Fails if the resource table is full.
pub(super) fn get(mut view: WasiHttpCtxView<'_>, future: &Resource<FutureResponse>) -> Result<GetResult> {
    let response = match view.table.get_mut(future)?.take() {
        None => return Ok(None),
        Some(None) => return Ok(Some(Err(()))),
        Some(Some(Ok(response))) => response,
        Some(Some(Err(code))) => {
            // Wasmtime's future converts the error into the WIT type.
            let failed = view.table.push(HostFutureIncomingResponse::Ready(Err(code)))?;
            let result = types::HostFutureIncomingResponse::get(&mut view, Resource::new_borrow(failed.rep()))?;
            view.table.delete(failed)?;
            return Ok(result);
        }
    };
    let (head, body) = response.into_parts();
    let headers = FieldMap::new_immutable(view.hooks, head.headers);
    let response = HostIncomingResponse { status: head.status.as_u16(), headers, body: Some(HostIncomingBody::new(body)) };
    Ok(Some(Ok(Ok(view.table.push(response)?))))
}

/// The requests of an instance that have no response yet. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<Weak<Mutex<Progress>>>>>);

impl Requests {
    /// Runs a call, and drives the requests that it sends, both in the current task. So requests
    /// make progress whenever the component waits, and while it computes, at the end of each epoch.
    ///
    /// When a response arrives, `call` is polled again, whatever it waits for.
    pub(crate) async fn drive<F: Future>(self, call: F) -> F::Output {
        let mut call = std::pin::pin!(call);
        poll_fn(|context| {
            self.poll(context);
            loop {
                if let Poll::Ready(output) = call.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                // This also starts the requests that the component has just sent. It has not seen a
                // response that arrives here, so poll it again.
                if !self.poll(context) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Polls all requests, and returns whether a response arrived.
    fn poll(&self, context: &mut Context<'_>) -> bool {
        let mut arrived = false;
        lock(&self.0).retain(|request| {
            // The component has dropped the future, and with it the request.
            let Some(request) = request.upgrade() else { return false };
            let mut progress = lock(&request);
            let Progress::Pending(response) = &mut *progress else { return false };
            let Poll::Ready(response) = response.as_mut().poll(context) else { return true };
            *progress = Progress::Ready(response);
            arrived = true;
            false
        });
        arrived
    }
}

/// The resource `future-incoming-response`.
pub(crate) struct FutureResponse(Arc<Mutex<Progress>>);

enum Progress {
    Pending(Pin<Box<dyn Future<Output = ResponseResult> + Send>>),
    Ready(ResponseResult),
    Taken,
}

impl FutureResponse {
    /// Takes the response. Returns `None` while it is pending, and `Some(None)` if it was taken
    /// before.
    fn take(&mut self) -> Option<Option<ResponseResult>> {
        let mut progress = lock(&self.0);
        match mem::replace(&mut *progress, Progress::Taken) {
            pending @ Progress::Pending(_) => {
                *progress = pending;
                None
            }
            Progress::Ready(response) => Some(Some(response)),
            Progress::Taken => Some(None),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FutureResponse {
    async fn ready(&mut self) {
        // No waker is registered: this task also drives the request, see `Requests::drive`.
        poll_fn(|_| match *lock(&self.0) {
            Progress::Pending(_) => Poll::Pending,
            Progress::Ready(_) | Progress::Taken => Poll::Ready(()),
        })
        .await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
