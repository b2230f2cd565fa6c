;; Returns a string of 200 MiB that exceeds its memory.
(module
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (i32.store (i32.const 8) (i32.const 0xc800000))
    i32.const 0))
