;; Has an initial memory that is too large: 1 GiB.
(module
  (memory (export "memory") 16384))
