//go:build linux && arm64 && cgo && !machnet_system && !machnet_source

// Package linux_arm64 carries the client's static archive for this platform. It is a package of its own so that
// vendoring keeps the archive: a folder without Go files is dropped.
package linux_arm64

// #cgo LDFLAGS: ${SRCDIR}/libmachnet.a -lm -ldl -lpthread
import "C"
