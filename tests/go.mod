module github.com/machnet/machnet/tests

go 1.26.0

require (
	github.com/machnet/machnet v0.1.0
	github.com/machnet/machnet/cmd v0.1.0
	github.com/machnet/machnet/go/machnettest v0.1.0
	github.com/prometheus/client_golang v1.25.0
	github.com/prometheus/client_model v0.6.3
	github.com/prometheus/common v0.74.0
	go.uber.org/goleak v1.3.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pandatix/go-abnf v0.5.5 // indirect
	golang.org/x/mod v0.43.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/machnet/machnet => ../
	github.com/machnet/machnet/cmd => ../cmd
	github.com/machnet/machnet/go/machnettest => ../go/machnettest
)
