// Package e2e tests the Go client over real sidecars, two hosts joined by a link: memif, or with `go test ./e2e -link veth` the
// kernel's af_packet between two network namespaces (root). The same tests run on both; those that make links of their own, or
// need none, run with memif only and say so (onAnyLink).
package e2e
