module github.com/machnet/machnet/cmd

go 1.26.0

require github.com/HdrHistogram/hdrhistogram-go v1.4.0

require (
	github.com/machnet/machnet v0.1.0
	golang.org/x/sys v0.49.0
)

replace github.com/machnet/machnet => ../
