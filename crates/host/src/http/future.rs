//! `outgoing-handler.handle`, and the response that it promises: the host's own, in place of wasmtime's.
//!
//! Wasmtime's makes two tasks of each request. When both can go on, tokio wakes another thread for one of them, which was the greater
//! part of what a small request cost. Here a request is carried on by the task of the call that has sent it.

use super::{Answer, Outgoing};
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
use wasmtime::component::{Linker, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::p2::{Pollable, subscribe};
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode};
use wasmtime_wasi_http::p2::body::HostIncomingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p2::{HttpResult, http_request_error};
use wasmtime_wasi_http::{FieldMap, WasiBody, WasiHttp, WasiHttpCtxView, WasiHttpHooks as _, WasiHttpView};

/// What a store has for `wasi:http`.
pub trait View: WasiHttpView {
    /// The requests of its component.
    fn outgoing(&mut self) -> (&mut Outgoing, &mut ResourceTable);
}

/// Links `wasi:http`: wasmtime's, but for `handle` and what it answers.
pub fn add_to_linker<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    let options = types::LinkOptions::default();
    types::add_to_linker::<T, WasiHttp>(linker, &options, T::http)?;
    linker.allow_shadowing(true);
    // By the version that wasmtime's have. With another, nothing would be replaced, and `handle` answer with what no function takes,
    // which is refused when a component is loaded.
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.resource("future-incoming-response", ResourceType::host::<FutureResponse>(), |mut store, handle| {
        store.data_mut().http().table.delete(Resource::<FutureResponse>::new_own(handle))?;
        Ok(())
    })?;
    types.func_wrap("[method]future-incoming-response.subscribe", |mut store, (promised,): (Resource<FutureResponse>,)| {
        Ok((subscribe(store.data_mut().http().table, promised)?,))
    })?;
    types.func_wrap("[method]future-incoming-response.get", |mut store, (promised,): (Resource<FutureResponse>,)| {
        Ok((get(store.data_mut().http(), &promised)?,))
    })?;
    linker.allow_shadowing(false);
    type Sent = (Resource<HostOutgoingRequest>, Option<Resource<types::RequestOptions>>);
    // Timeouts among the options are not kept: the plugin sets none, since its own deadline is for the whole call.
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap("handle", |mut store, (request, _): Sent| {
        let (outgoing, table) = store.data_mut().outgoing();
        Ok((match handle(outgoing, table, request) {
            Ok(promised) => Ok(promised),
            Err(error) => Err(error.downcast()?),
        },))
    })
}

/// Sends a request.
pub(super) fn handle(
    outgoing: &mut Outgoing,
    table: &mut ResourceTable,
    request: Resource<HostOutgoingRequest>,
) -> HttpResult<Resource<FutureResponse>> {
    let request = requested(outgoing, table.delete(request)?)?;
    let promised = FutureResponse(Arc::new(Mutex::new(Progress::Sent(outgoing.send(request)))));
    lock(&outgoing.requests.0).push(Arc::downgrade(&promised.0));
    Ok(table.push(promised)?)
}

/// What hyper is to send for what the component has put together.
fn requested(outgoing: &mut Outgoing, asked: HostOutgoingRequest) -> HttpResult<Request<WasiBody>> {
    let HostOutgoingRequest { method, scheme, authority, path_with_query, headers, body } = asked;
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
    // As the component wrote it.
    let host = HeaderValue::try_from(authority).map_err(|error| http_request_error(error.into()))?;
    // Of a body it was checked by whoever made it.
    if body.is_none() && headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err(ErrorCode::HttpRequestBodySize(Some(0)).into());
    }
    let body = body.unwrap_or_else(|| Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    // The first of them, as RFC 9110 asks for. Among the component's own it is forbidden.
    request.headers_mut().insert(HOST, host);
    request.headers_mut().extend(HeaderMap::from(headers));
    Ok(request)
}

type Got = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;

/// The response, if it is there and was not got before.
pub(super) fn get(mut view: WasiHttpCtxView<'_>, promised: &Resource<FutureResponse>) -> Result<Got> {
    let response = match view.table.get_mut(promised)?.take() {
        None => return Ok(None),
        Some(None) => return Ok(Some(Err(()))),
        Some(Some(Ok(response))) => response,
        Some(Some(Err(code))) => {
            // Wasmtime's knows which error that is for a component.
            let theirs = view.table.push(HostFutureIncomingResponse::Ready(Err(code)))?;
            let got = types::HostFutureIncomingResponse::get(&mut view, Resource::new_borrow(theirs.rep()))?;
            view.table.delete(theirs)?;
            return Ok(got);
        }
    };
    let (head, body) = response.into_parts();
    let headers = FieldMap::new_immutable(view.hooks, head.headers);
    let response = HostIncomingResponse { status: head.status.as_u16(), headers, body: Some(HostIncomingBody::new(body)) };
    Ok(Some(Ok(Ok(view.table.push(response)?))))
}

/// The requests of an instance that have no answer yet. Clones are the same requests.
#[derive(Clone, Default)]
pub struct Requests(Arc<Mutex<Vec<Weak<Mutex<Progress>>>>>);

impl Requests {
    /// Lets the component run, and carries on what it has sent, both in the task of whoever polls this: so a request goes on whenever
    /// the component waits, and while it computes at the end of each of its turns.
    ///
    /// `run` is polled again whenever a request was answered, whatever it waits for.
    pub async fn drive<F: Future>(self, run: F) -> F::Output {
        let mut run = std::pin::pin!(run);
        poll_fn(|context| {
            self.poll(context);
            loop {
                if let Poll::Ready(output) = run.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                // Those that it has just sent, too. What was answered at once it has not seen yet.
                if !self.poll(context) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Whether one of them was answered.
    fn poll(&self, context: &mut Context<'_>) -> bool {
        let mut answered = false;
        lock(&self.0).retain(|request| {
            // Those that the component has dropped are gone.
            let Some(request) = request.upgrade() else { return false };
            let mut progress = lock(&request);
            let Progress::Sent(future) = &mut *progress else { return false };
            let Poll::Ready(answer) = future.as_mut().poll(context) else { return true };
            *progress = Progress::Answered(answer);
            answered = true;
            false
        });
        answered
    }
}

/// A response that is to come: `future-incoming-response`.
pub struct FutureResponse(Arc<Mutex<Progress>>);

enum Progress {
    Sent(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Answered(Answer),
    Taken,
}

impl FutureResponse {
    /// `None` as long as there is no answer, and within it `None` if it was taken before.
    fn take(&mut self) -> Option<Option<Answer>> {
        let mut progress = lock(&self.0);
        match mem::replace(&mut *progress, Progress::Taken) {
            sent @ Progress::Sent(_) => {
                *progress = sent;
                None
            }
            Progress::Answered(answer) => Some(Some(answer)),
            Progress::Taken => Some(None),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FutureResponse {
    async fn ready(&mut self) {
        // Nobody is told to wake this task: it is the one that carries the request on, see `Requests::drive`.
        poll_fn(|_| match *lock(&self.0) {
            Progress::Sent(_) => Poll::Pending,
            Progress::Answered(_) | Progress::Taken => Poll::Ready(()),
        })
        .await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
