//! Bindings that `wit-bindgen` generates from the plugin's world: a trait `Guest` and the types of
//! each interface in `wit/`.

#![allow(unsafe_code, reason = "generated: the canonical ABI")]
#![allow(missing_docs, reason = "the documentation of generated items is the WIT's")]

wit_bindgen::generate!({
    world: "plugin",
    path: "wit",
    // The imports are in the crate `wasi`.
    with: {
        "wasi:clocks/monotonic-clock@0.2.0": wasi::clocks::monotonic_clock,
        "wasi:http/outgoing-handler@0.2.0": wasi::http::outgoing_handler,
        "wasi:http/types@0.2.0": wasi::http::types,
        "wasi:io/error@0.2.0": wasi::io::error,
        "wasi:io/poll@0.2.0": wasi::io::poll,
        "wasi:io/streams@0.2.0": wasi::io::streams,
    },
    pub_export_macro: true,
});
