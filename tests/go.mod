module github.com/machnet/machnet/tests

go 1.26.0

require github.com/machnet/machnet v0.0.0

require golang.org/x/net v0.62.0

replace github.com/machnet/machnet => ../
