;; Has many memories. Each is empty, and reserves 4 GiB of address space.
(module
  (memory (export "memory") 2)
  (memory 0) (memory 0) (memory 0) (memory 0) (memory 0)
  (memory 0) (memory 0) (memory 0) (memory 0) (memory 0))
