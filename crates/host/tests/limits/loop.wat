;; Computes for ever if it is told anything, and answers with the empty text if not.
(module
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param $text i32) (param $length i32) (result i32)
    (if (local.get $length)
      (then (loop $again (br $again))))
    ;; ok("")
    i32.const 0))
