;; Sends 50 concurrent requests to the authority in its argument, and waits for a year.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set_authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $wait (param i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
  (data (i32.const 32) "/")
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (local $request i32) (local $sent i32)
    (loop $again
      (local.set $request (call $request (call $fields)))
      ;; some(http)
      (drop (call $set_scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
      (drop (call $set_authority (local.get $request) (i32.const 1) (local.get $text) (local.get $length)))
      (drop (call $set_path (local.get $request) (i32.const 1) (i32.const 32) (i32.const 1)))
      (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 64))
      (local.set $sent (i32.add (local.get $sent) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $sent) (i32.const 50))))
    (call $wait (call $timer (i64.const 31536000000000000)))
    unreachable))
