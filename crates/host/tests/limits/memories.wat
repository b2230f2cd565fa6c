;; Has many memories. Each is empty, and has 4 GiB of addresses set aside for it.
(module
  (memory (export "memory") 2)
  (memory 0) (memory 0) (memory 0) (memory 0) (memory 0)
  (memory 0) (memory 0) (memory 0) (memory 0) (memory 0))
