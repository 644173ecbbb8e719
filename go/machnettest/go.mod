module github.com/machnet/machnet/go/machnettest

go 1.24.0

require github.com/machnet/machnet v0.1.0

replace github.com/machnet/machnet => ../../
