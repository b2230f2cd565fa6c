;; Is too large before it can be called: 1 GiB.
(module
  (memory (export "memory") 16384))
