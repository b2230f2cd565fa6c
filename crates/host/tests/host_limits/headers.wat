;; Adds headers to the same fields without end.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[method]fields.append"
    (func $append (param i32 i32 i32 i32 i32 i32)))
  (data (i32.const 32) "x")
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (local $fields i32)
    (local.set $fields (call $fields))
    (loop $again
      (call $append (local.get $fields) (i32.const 32) (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 64))
      (br $again))
    unreachable))
