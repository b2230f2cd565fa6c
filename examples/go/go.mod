module consul-session-example

go 1.24
