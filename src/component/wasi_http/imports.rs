//! What the transport imports of `wasi:http`, `wasi:io` and `wasi:clocks`.
//!
//! By hand: what `wit-bindgen` makes takes each answer apart in each function anew, the thirty-nine cases of an `error-code`
//! too, which is 5 kB of the plugin. Here the host writes a type that lies in memory as the interface has it. `wit-component`
//! checks the functions against `wit/`, and `tests/native/wit.rs` the types of their answers.

use super::error_code::ErrorCode;
use crate::component::abi::{Answer, List, Maybe};
use core::mem::MaybeUninit;
use core::ptr;

/// Makes resources: what the host keeps, and takes back when it is dropped.
macro_rules! resources {
    ($($name:ident = $drop:literal in $module:literal,)*) => {
        $(
            #[repr(transparent)]
            pub struct $name(u32);

            impl Drop for $name {
                fn drop(&mut self) {
                    #[link(wasm_import_module = $module)]
                    unsafe extern "C" {
                        #[link_name = $drop]
                        fn import_drop(handle: u32);
                    }
                    // Safety: it was the only handle.
                    unsafe { import_drop(self.0) }
                }
            }
        )*
    };
}

resources! {
    Pollable = "[resource-drop]pollable" in "wasi:io/poll@0.2.0",
    Error = "[resource-drop]error" in "wasi:io/error@0.2.0",
    InputStream = "[resource-drop]input-stream" in "wasi:io/streams@0.2.0",
    OutputStream = "[resource-drop]output-stream" in "wasi:io/streams@0.2.0",
    Fields = "[resource-drop]fields" in "wasi:http/types@0.2.0",
    OutgoingRequest = "[resource-drop]outgoing-request" in "wasi:http/types@0.2.0",
    OutgoingBody = "[resource-drop]outgoing-body" in "wasi:http/types@0.2.0",
    FutureIncomingResponse = "[resource-drop]future-incoming-response" in "wasi:http/types@0.2.0",
    IncomingResponse = "[resource-drop]incoming-response" in "wasi:http/types@0.2.0",
    IncomingBody = "[resource-drop]incoming-body" in "wasi:http/types@0.2.0",
}

/// Cases of `method`, by their place in it.
pub const METHOD_POST: u32 = 2;
pub const METHOD_PUT: u32 = 3;

/// Cases of `scheme`, by their place in it.
pub const SCHEME_HTTP: u32 = 0;
pub const SCHEME_HTTPS: u32 = 1;
pub const SCHEME_OTHER: u32 = 2;

pub type FieldValue = List<u8>;

pub type Headers = Fields;

#[expect(dead_code, reason = "the host makes them")]
#[repr(u8)]
pub enum HeaderError {
    InvalidSyntax,
    Forbidden,
    Immutable,
}

#[expect(dead_code, reason = "the host makes them")]
#[repr(C, u8)]
pub enum StreamError {
    LastOperationFailed(Error),
    Closed,
}

/// A name and a value, as `from-list` reads them.
#[repr(C)]
struct Entry {
    name: *const u8,
    name_length: usize,
    value: *const u8,
    value_length: usize,
}

// A resource that goes over is its type here, and one that is only lent its number.

#[link(wasm_import_module = "wasi:clocks/monotonic-clock@0.2.0")]
unsafe extern "C" {
    #[link_name = "subscribe-duration"]
    fn import_subscribe_duration(when: u64) -> Pollable;
}

#[link(wasm_import_module = "wasi:io/poll@0.2.0")]
unsafe extern "C" {
    #[link_name = "poll"]
    fn import_poll(pollables: *const u32, length: usize, answer: *mut List<u32>);
}

#[link(wasm_import_module = "wasi:io/streams@0.2.0")]
unsafe extern "C" {
    #[link_name = "[method]input-stream.read"]
    fn import_read(stream: u32, length: u64, answer: *mut Answer<List<u8>, StreamError>);
    #[link_name = "[method]input-stream.subscribe"]
    fn import_input_subscribe(stream: u32) -> Pollable;
    #[link_name = "[method]output-stream.check-write"]
    fn import_check_write(stream: u32, answer: *mut Answer<u64, StreamError>);
    #[link_name = "[method]output-stream.write"]
    fn import_write(stream: u32, bytes: *const u8, length: usize, answer: *mut Answer<(), StreamError>);
    #[link_name = "[method]output-stream.subscribe"]
    fn import_output_subscribe(stream: u32) -> Pollable;
}

#[link(wasm_import_module = "wasi:http/outgoing-handler@0.2.0")]
unsafe extern "C" {
    #[link_name = "handle"]
    fn import_handle(
        request: OutgoingRequest,
        options_given: u32,
        options: u32,
        answer: *mut Answer<FutureIncomingResponse, ErrorCode>,
    );
}

#[link(wasm_import_module = "wasi:http/types@0.2.0")]
unsafe extern "C" {
    #[link_name = "[static]fields.from-list"]
    fn import_from_list(entries: *const Entry, length: usize, answer: *mut Answer<Fields, HeaderError>);
    #[link_name = "[method]fields.get"]
    fn import_field(fields: u32, name: *const u8, length: usize, answer: *mut List<FieldValue>);
    #[link_name = "[constructor]outgoing-request"]
    fn import_new(headers: Fields) -> OutgoingRequest;
    #[link_name = "[method]outgoing-request.set-method"]
    fn import_set_method(request: u32, case: u32, other: *const u8, length: usize) -> u32;
    #[link_name = "[method]outgoing-request.set-scheme"]
    fn import_set_scheme(request: u32, given: u32, case: u32, other: *const u8, length: usize) -> u32;
    #[link_name = "[method]outgoing-request.set-authority"]
    fn import_set_authority(request: u32, given: u32, authority: *const u8, length: usize) -> u32;
    #[link_name = "[method]outgoing-request.set-path-with-query"]
    fn import_set_path_with_query(request: u32, given: u32, path_with_query: *const u8, length: usize) -> u32;
    #[link_name = "[method]outgoing-request.body"]
    fn import_outgoing_body(request: u32, answer: *mut Answer<OutgoingBody, ()>);
    #[link_name = "[method]outgoing-body.write"]
    fn import_outgoing_stream(body: u32, answer: *mut Answer<OutputStream, ()>);
    #[link_name = "[static]outgoing-body.finish"]
    fn import_finish(body: OutgoingBody, trailers_given: u32, trailers: u32, answer: *mut Answer<(), ErrorCode>);
    #[link_name = "[method]future-incoming-response.subscribe"]
    fn import_response_subscribe(future: u32) -> Pollable;
    #[link_name = "[method]future-incoming-response.get"]
    fn import_response(future: u32, answer: *mut Maybe<Answer<Answer<IncomingResponse, ErrorCode>, ()>>);
    #[link_name = "[method]incoming-response.status"]
    fn import_status(response: u32) -> u32;
    #[link_name = "[method]incoming-response.headers"]
    fn import_headers(response: u32) -> Headers;
    #[link_name = "[method]incoming-response.consume"]
    fn import_incoming_body(response: u32, answer: *mut Answer<IncomingBody, ()>);
    #[link_name = "[method]incoming-body.stream"]
    fn import_incoming_stream(body: u32, answer: *mut Answer<InputStream, ()>);
}

/// What a host writes where it is told to.
///
/// # Safety
///
/// The call writes a whole value.
unsafe fn written<T>(call: impl FnOnce(*mut T)) -> T {
    let mut value = MaybeUninit::uninit();
    call(value.as_mut_ptr());
    // Safety: the caller's.
    unsafe { value.assume_init() }
}

// Safety, of all that follows: the host reads what it is given before the call is over, and writes or gives back what the
// function of its name has in `wit/`.

/// Whichever of these are ready, by their place; waits for one.
pub fn poll(pollables: &[&Pollable; 2]) -> List<u32> {
    let handles = pollables.map(|pollable| pollable.0);
    unsafe { written(|answer| import_poll(handles.as_ptr(), handles.len(), answer)) }
}

/// `outgoing-handler.handle`, without options.
pub fn handle(request: OutgoingRequest) -> Answer<FutureIncomingResponse, ErrorCode> {
    unsafe { written(|answer| import_handle(request, 0, 0, answer)) }
}

impl Pollable {
    /// `subscribe-duration`.
    pub fn after(nanoseconds: u64) -> Pollable {
        unsafe { import_subscribe_duration(nanoseconds) }
    }
}

impl InputStream {
    pub fn read(&self, length: u64) -> Answer<List<u8>, StreamError> {
        unsafe { written(|answer| import_read(self.0, length, answer)) }
    }

    pub fn subscribe(&self) -> Pollable {
        unsafe { import_input_subscribe(self.0) }
    }
}

impl OutputStream {
    pub fn check_write(&self) -> Answer<u64, StreamError> {
        unsafe { written(|answer| import_check_write(self.0, answer)) }
    }

    pub fn write(&self, bytes: &[u8]) -> bool {
        unsafe { written(|answer| import_write(self.0, bytes.as_ptr(), bytes.len(), answer)) }.ok().is_some()
    }

    pub fn subscribe(&self) -> Pollable {
        unsafe { import_output_subscribe(self.0) }
    }
}

impl Fields {
    pub fn from_list(entries: &[(&str, &str)]) -> Option<Fields> {
        let entry = |&(name, value): &(&str, &str)| Entry {
            name: name.as_ptr(),
            name_length: name.len(),
            value: value.as_ptr(),
            value_length: value.len(),
        };
        let entries: List<Entry> = entries.iter().map(entry).collect();
        unsafe { written(|answer| import_from_list(entries.as_ptr(), entries.len(), answer)) }.ok()
    }

    pub fn get(&self, name: &str) -> List<FieldValue> {
        unsafe { written(|answer| import_field(self.0, name.as_ptr(), name.len(), answer)) }
    }
}

/// The setters say whether the host accepts.
impl OutgoingRequest {
    pub fn new(headers: Fields) -> OutgoingRequest {
        unsafe { import_new(headers) }
    }

    pub fn set_method(&self, case: u32) -> bool {
        unsafe { import_set_method(self.0, case, ptr::null(), 0) == 0 }
    }

    pub fn set_scheme(&self, case: u32, other: &str) -> bool {
        unsafe { import_set_scheme(self.0, 1, case, other.as_ptr(), other.len()) == 0 }
    }

    pub fn set_authority(&self, authority: &str) -> bool {
        unsafe { import_set_authority(self.0, 1, authority.as_ptr(), authority.len()) == 0 }
    }

    pub fn set_path_with_query(&self, path_with_query: &str) -> bool {
        unsafe { import_set_path_with_query(self.0, 1, path_with_query.as_ptr(), path_with_query.len()) == 0 }
    }

    pub fn body(&self) -> Option<OutgoingBody> {
        unsafe { written(|answer| import_outgoing_body(self.0, answer)) }.ok()
    }
}

impl OutgoingBody {
    pub fn write(&self) -> Option<OutputStream> {
        unsafe { written(|answer| import_outgoing_stream(self.0, answer)) }.ok()
    }

    /// Without trailers. Should the host find fault with the body, the response tells.
    pub fn finish(self) {
        let _: Answer<(), ErrorCode> = unsafe { written(|answer| import_finish(self, 0, 0, answer)) };
    }
}

impl FutureIncomingResponse {
    pub fn subscribe(&self) -> Pollable {
        unsafe { import_response_subscribe(self.0) }
    }

    /// `None` also for an answer that was fetched before.
    pub fn get(&self) -> Option<Answer<IncomingResponse, ErrorCode>> {
        match unsafe { written(|answer| import_response(self.0, answer)) } {
            Maybe::Some(Answer::Ok(response)) => Some(response),
            Maybe::Some(Answer::Err(())) | Maybe::None => None,
        }
    }
}

impl IncomingResponse {
    pub fn status(&self) -> u16 {
        unsafe { import_status(self.0) as u16 }
    }

    pub fn headers(&self) -> Fields {
        unsafe { import_headers(self.0) }
    }

    pub fn consume(&self) -> Option<IncomingBody> {
        unsafe { written(|answer| import_incoming_body(self.0, answer)) }.ok()
    }
}

impl IncomingBody {
    pub fn stream(&self) -> Option<InputStream> {
        unsafe { written(|answer| import_incoming_stream(self.0, answer)) }.ok()
    }
}
