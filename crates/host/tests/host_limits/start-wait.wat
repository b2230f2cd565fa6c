;; Waits for a year when it is instantiated.
(module
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $wait (param i32)))
  (func $start (call $wait (call $timer (i64.const 31536000000000000))))
  (start $start))
