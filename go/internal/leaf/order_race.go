//go:build linux && (amd64 || arm64) && race

package leaf

import (
	"runtime"
	"unsafe"
)

// The race detector sees nothing of C, but a message that came through it was sent before: what its sender wrote until then, its receiver may read. For
// system calls and cgo the detector is told so, or it would complain of programs that are right over TCP.

func release() { runtime.RaceReleaseMerge(unsafe.Pointer(&order)) }
func acquire() { runtime.RaceAcquire(unsafe.Pointer(&order)) }

var order byte
