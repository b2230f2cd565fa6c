;; Computes forever when it is instantiated.
(module
  (func $start (loop $again (br $again)))
  (start $start))
