;; Computes forever if it has an argument, and returns the empty string otherwise.
(module
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (if (local.get $length)
      (then (loop $again (br $again))))
    ;; ok("")
    i32.const 0))
