//go:build linux && amd64 && cgo && !machnet_source

// Package linux_amd64 carries the static archive of the whole stack for this platform. It is a package of its own so that
// vendoring keeps the archive.
package linux_amd64

// #cgo LDFLAGS: ${SRCDIR}/libmachnetcore.a -lm -ldl -lpthread
//
// #if !__has_include("libmachnetcore.a")
// #error "libmachnetcore.a is missing beside lib.go, so this copy of the module is not whole: get it anew (go clean -modcache, go mod vendor); in a clone of Machnet run `make archives`"
// #endif
import "C"
