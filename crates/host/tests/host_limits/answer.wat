;; Returns a string of 1 MiB for each byte of its argument, as an error if the first byte is an `e`.
(module
  (memory (export "memory") 2)
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (local $bytes i32) (local $begin i32)
    (local.set $bytes (i32.shl (local.get $length) (i32.const 20)))
    (local.set $begin (i32.shl (memory.grow (i32.shr_u (local.get $bytes) (i32.const 16))) (i32.const 16)))
    (memory.fill (local.get $begin) (i32.const 0x61) (local.get $bytes))
    (if (i32.eq (i32.load8_u (local.get $text)) (i32.const 0x65))
      (then
        ;; err(other(..))
        (i32.store8 (i32.const 0) (i32.const 1))
        (i32.store8 (i32.const 4) (i32.const 20))
        (i32.store (i32.const 8) (local.get $begin))
        (i32.store (i32.const 12) (local.get $bytes)))
      (else
        ;; ok(..)
        (i32.store (i32.const 4) (local.get $begin))
        (i32.store (i32.const 8) (local.get $bytes))))
    i32.const 0))
