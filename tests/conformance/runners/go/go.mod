module consul-session-runner

go 1.24

require consul-session-example v0.0.0

replace consul-session-example => ../../../../examples/go
