//go:build linux && amd64 && cgo

// Package linux_amd64 carries the static archive of the whole stack for this platform (make archives).
package linux_amd64

// #cgo LDFLAGS: ${SRCDIR}/libmachnetcore.a -lm -ldl -lpthread
import "C"
