;; Creates requests whose parts are as long as the host accepts, and keeps them: they take the host's
;; memory, not its own. Traps if the host accepts a longer part.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[method]fields.append"
    (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
    (func $set_method (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set_authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $stream (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.check-write" (func $check_write (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop_stream (param i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]outgoing-body" (func $drop_body (param i32)))
  (memory (export "memory") 3)
  ;; A path at 0x20000, a name just behind its slash.
  (data (i32.const 0x20000) "/")
  (data (i32.const 32) "x")
  (func $assert (param i32)
    (if (i32.eqz (local.get 0)) (then unreachable)))
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (local $fields i32) (local $request i32) (local $body i32) (local $stream i32)
    (memory.fill (i32.const 0x20001) (i32.const 0x61) (i32.const 0x8000))
    (loop $again
      (local.set $fields (call $fields))
      (call $append (local.get $fields) (i32.const 32) (i32.const 1) (i32.const 0x20001) (i32.const 4000) (i32.const 64))
      (call $assert (i32.eqz (i32.load8_u (i32.const 64))))
      (local.set $request (call $request (local.get $fields)))
      ;; other(..)
      (call $assert (call $set_method (local.get $request) (i32.const 9) (i32.const 0x20001) (i32.const 513)))
      (call $assert
        (i32.eqz (call $set_method (local.get $request) (i32.const 9) (i32.const 0x20001) (i32.const 512))))
      ;; some(other(..))
      (call $assert
        (call $set_scheme (local.get $request) (i32.const 1) (i32.const 2) (i32.const 0x20001) (i32.const 513)))
      (call $assert (call $set_authority (local.get $request) (i32.const 1) (i32.const 0x20001) (i32.const 513)))
      (call $assert
        (i32.eqz (call $set_authority (local.get $request) (i32.const 1) (i32.const 0x20001) (i32.const 512))))
      (call $assert (call $set_path (local.get $request) (i32.const 1) (i32.const 0x20000) (i32.const 8193)))
      (call $assert
        (i32.eqz (call $set_path (local.get $request) (i32.const 1) (i32.const 0x20000) (i32.const 8192))))
      (call $body (local.get $request) (i32.const 64))
      (call $assert (i32.eqz (i32.load8_u (i32.const 64))))
      (local.set $body (i32.load (i32.const 68)))
      (call $stream (local.get $body) (i32.const 64))
      (call $assert (i32.eqz (i32.load8_u (i32.const 64))))
      (local.set $stream (i32.load (i32.const 68)))
      ;; As long as the host takes it, at most 8 KiB at once.
      (block $full
        (loop $more
          (call $check_write (local.get $stream) (i32.const 64))
          (call $assert (i32.eqz (i32.load8_u (i32.const 64))))
          (br_if $full (i64.eqz (i64.load (i32.const 72))))
          (call $assert (i64.le_u (i64.load (i32.const 72)) (i64.const 0x2000)))
          (call $write (local.get $stream) (i32.const 0x20001) (i32.load (i32.const 72)) (i32.const 64))
          (br $more)))
      ;; The request keeps what was written.
      (call $drop_stream (local.get $stream))
      (call $drop_body (local.get $body))
      (br $again))
    unreachable))
