module github.com/machnet/machnet/tests

go 1.26.0

require (
	github.com/machnet/machnet v0.0.0
	github.com/machnet/machnet/cmd v0.0.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

replace (
	github.com/machnet/machnet => ../
	github.com/machnet/machnet/cmd => ../cmd
)
