;; Creates requests with a method of 16 MiB and keeps them: they take the host's memory, not
;; its own.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
    (func $set_method (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 300)
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (memory.fill (i32.const 65536) (i32.const 0x61) (i32.const 0x1000000))
    (loop $again
      ;; other(..)
      (drop (call $set_method (call $request (call $fields)) (i32.const 9) (i32.const 65536) (i32.const 0x1000000)))
      (br $again))
    unreachable))
