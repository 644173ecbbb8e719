module github.com/machnet/machnet

go 1.24.0
