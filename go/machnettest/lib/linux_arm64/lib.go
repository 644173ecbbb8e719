//go:build linux && arm64 && cgo

// Package linux_arm64 carries the static archive of the whole stack for this platform (make archives).
package linux_arm64

// #cgo LDFLAGS: ${SRCDIR}/libmachnetcore.a -lm -ldl -lpthread
//
// #if !__has_include("libmachnetcore.a")
// #error "the archive of the whole stack is not there: run `make build` (or `make archives`) in the clone of Machnet, the one that go.mod's replace names"
// #endif
import "C"
