//go:build linux

package core

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// pollable is a descriptor in Go's poller, where a goroutine waits without holding a thread.
type pollable struct {
	file *os.File
	raw  syscall.RawConn
	shut atomic.Bool
}

// newPollable takes a copy of a non-blocking descriptor. os.NewFile leaves blocking ones out of the poller.
func newPollable(fd int, name string) (*pollable, error) {
	own, err := dupCloexec(fd)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(own), name)
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &pollable{file: file, raw: raw}, nil
}

// wait calls look at once, and again each time the descriptor may have become readable, until look returns true. The poller
// is edge-triggered: look must take everything there is, because for what it leaves nothing calls it again.
func (p *pollable) wait(look func(fd uintptr) bool) error { return p.raw.Read(look) }

// interrupt makes a wait return an error.
func (p *pollable) interrupt() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }

func (p *pollable) reset() { _ = p.file.SetReadDeadline(time.Time{}) }

// close may be called again, and on nil.
func (p *pollable) close() {
	if p != nil && p.shut.CompareAndSwap(false, true) {
		_ = p.file.Close()
	}
}

// drain empties a pipe.
type drain struct {
	waste [512]byte
	look  func(fd uintptr) bool // true when something was in the pipe, or it ended
	ended atomic.Bool           // nobody is left to write
}

// newDrain makes the look once, since a closure for every sleep would be garbage.
func newDrain() *drain {
	d := new(drain)
	d.look = func(fd uintptr) bool {
		for got := false; ; got = true {
			// RawSyscall: the pipe never blocks, and an announced system call would wake Go's monitor thread.
			n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&d.waste)), uintptr(len(d.waste)))
			switch {
			case errno == syscall.EINTR: // not for a pipe that does not block, but cheap to allow
			case errno != 0:
				return got
			case n == 0:
				d.ended.Store(true)
				return true
			case int(n) < len(d.waste):
				return true
			}
		}
	}
	return d
}

// hungUp is a look that is true when the other end of a socket has gone.
func hungUp(fd uintptr) bool {
	var waste [64]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), waste[:], syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EINTR || n > 0:
		default:
			return true
		}
	}
}

func dupCloexec(fd int) (int, error) {
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(own), nil
}
