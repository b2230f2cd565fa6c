;; Computes for ever before it can be called.
(module
  (func $start (loop $again (br $again)))
  (start $start))
