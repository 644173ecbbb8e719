//go:build linux && amd64 && cgo && !machnet_system && !machnet_source

// Package linux_amd64 carries the client's static archive for this platform. It is a package of its own so that
// vendoring keeps the archive: a folder without Go files is dropped.
package linux_amd64

// #cgo LDFLAGS: ${SRCDIR}/libmachnet.a -lm -ldl -lpthread
//
// #if !__has_include("libmachnet.a")
// #error "the archive of the C client is not there: run `make build` (or `make archives`) in the clone of Machnet, the one that go.mod's replace names"
// #endif
import "C"
