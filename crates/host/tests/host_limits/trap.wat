;; Traps in a function whose name the error must not show.
(module
  (func $this_name_is_the_component's_own unreachable)
  (func (export "consul-session:plugin/desired-state@0.1.0#apply-json") (param i32 i32) (result i32)
    (call $this_name_is_the_component's_own)
    unreachable))
