//go:build linux && arm64 && cgo && !machnet_system && !machnet_source

// Package linux_arm64 carries the client's static archive for this platform. It is a package of its own so that
// vendoring keeps the archive: a folder without Go files is dropped.
package linux_arm64

// #cgo LDFLAGS: ${SRCDIR}/libmachnet.a -lm -ldl -lpthread
//
// #if !__has_include("libmachnet.a")
// #error "libmachnet.a is missing beside lib.go, so this copy of the module is not whole: get it anew (go clean -modcache, go mod vendor); in a clone of Machnet run `make archives`"
// #endif
import "C"
