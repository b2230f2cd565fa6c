;; Counts the calls of the instance, and returns the number of this one as a digit. Before that, it
;; does what the first byte of its argument says: `t` traps, `e` returns the digit as an error, `m`
;; grows the memory by 9 MiB, `p` pauses for a millisecond, `w` waits for a year.
(module
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $wait (param i32)))
  (memory (export "memory") 2)
  (global $calls (mut i32) (i32.const 0))
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (local $order i32)
    (local.set $order (i32.load8_u (local.get $text)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (if (i32.eq (local.get $order) (i32.const 0x74)) (then unreachable))
    (if (i32.eq (local.get $order) (i32.const 0x6d)) (then (drop (memory.grow (i32.const 144)))))
    (if (i32.eq (local.get $order) (i32.const 0x70)) (then (call $wait (call $timer (i64.const 1000000)))))
    (if (i32.eq (local.get $order) (i32.const 0x77)) (then (call $wait (call $timer (i64.const 31536000000000000)))))
    (i32.store8 (i32.const 100) (i32.add (i32.const 0x30) (global.get $calls)))
    (if (i32.eq (local.get $order) (i32.const 0x65))
      (then
        ;; err(other(..))
        (i32.store8 (i32.const 0) (i32.const 1))
        (i32.store8 (i32.const 4) (i32.const 20))
        (i32.store (i32.const 8) (i32.const 100))
        (i32.store (i32.const 12) (i32.const 1)))
      (else
        ;; ok(..)
        (i32.store8 (i32.const 0) (i32.const 0))
        (i32.store (i32.const 4) (i32.const 100))
        (i32.store (i32.const 8) (i32.const 1))))
    i32.const 0))
