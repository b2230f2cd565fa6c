;; Sends requests to the authority in its argument, and drops their futures at once.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set_authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]future-incoming-response" (func $drop (param i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
  (data (i32.const 32) "/")
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (local $request i32)
    (loop $again
      (local.set $request (call $request (call $fields)))
      ;; some(http)
      (drop (call $set_scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
      (drop (call $set_authority (local.get $request) (i32.const 1) (local.get $text) (local.get $length)))
      (drop (call $set_path (local.get $request) (i32.const 1) (i32.const 32) (i32.const 1)))
      (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 64))
      ;; ok(future), at the offset that the largest error code gives it
      (if (i32.eqz (i32.load8_u (i32.const 64)))
        (then (call $drop (i32.load (i32.const 72)))))
      (br $again))
    unreachable))
