//! Passes the body of an HTTP request to the plugin's `apply-json`, and answers with its JSON: 200
//! with the outcome, or 422 with the error, as `{"tag": "unreachable", "val": "…"}`.

// An empty crate on other targets, so that the whole workspace builds natively.
#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "consul-session:wasmcloud-front/front",
        generate_all,
        additional_derives: [serde::Serialize],
        additional_derives_ignore: ["stream-error"],
        additional_type_attributes: {
            "consul-session:plugin/sessions@0.1.0/error":
                [#[serde(tag = "tag", content = "val", rename_all = "kebab-case")]],
        },
    });
}

use bindings::consul_session::plugin::desired_state::apply_json;
use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Front;

bindings::export!(Front with_types_in bindings);

impl Guest for Front {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let body = request.consume().expect("a body that nobody has taken");
        let stream = body.stream().expect("a stream that nobody has taken");
        // Until the stream ends, which is an error.
        let options = std::iter::from_fn(|| stream.blocking_read(64 * 1024).ok()).flatten().collect::<Vec<u8>>();
        let (status, answer) = match apply_json(&String::from_utf8_lossy(&options)) {
            Ok(outcome) => (200, outcome),
            Err(error) => (422, serde_json::to_string(&error).expect("names are strings")),
        };
        let response = OutgoingResponse::new(Fields::new());
        response.set_status_code(status).expect("a valid status");
        let body = response.body().expect("a body that nobody has taken");
        let stream = body.write().expect("a stream that nobody has taken");
        ResponseOutparam::set(response_out, Ok(response));
        // A client that has gone needs no answer.
        for chunk in answer.as_bytes().chunks(4096) {
            let _ = stream.blocking_write_and_flush(chunk);
        }
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
