;; Grows its memory page by page, and writes to each page.
(module
  (memory (export "memory") 2)
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (local $page i32)
    (loop $again
      (local.set $page (memory.grow (i32.const 1)))
      ;; After a refusal, try again.
      (br_if $again (i32.eq (local.get $page) (i32.const -1)))
      (i32.store (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
      (br $again))
    unreachable))
