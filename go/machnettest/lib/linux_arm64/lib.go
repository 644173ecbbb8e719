//go:build linux && arm64 && cgo

// Package linux_arm64 carries the static archive of the whole stack for this platform (make archives).
package linux_arm64

// #cgo LDFLAGS: ${SRCDIR}/libmachnetcore.a -lm -ldl -lpthread
import "C"
