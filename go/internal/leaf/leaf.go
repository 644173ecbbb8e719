//go:build linux && (amd64 || arm64)

// Package leaf calls short C functions without telling Go's scheduler, on stacks of its own.
//
// A call through cgo tells the scheduler that the goroutine is in a system call. Where the whole process slept until just now, that wakes Go's monitor
// thread, which then looks around every 20 us until all sleep again: two thread sleeps for each message that somebody waited for, and beside a
// processor hog as much processor time as all the rest. What is called here never blocks and is over in microseconds, so the scheduler need not know.
//
// To the runtime such a call is one long instruction: the goroutine cannot be preempted in it, its stack neither moves nor is looked at, and signal
// handlers, which have a stack of their own, find a program counter that is not Go's, as in any C function. So the function must not block, must not
// call back into Go, and must not take long: a garbage collection waits for it. A fault in it ends the program, as one in C does (Call).
package leaf

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Stack is what C functions run on, one at a time: whoever calls must keep others away. The zero Stack must be made first.
type Stack struct {
	memory []byte
	top    uintptr // of no object, so no pointer: the runtime's heap may begin there
}

const (
	stackSize = 128 << 10 // of which only pages that were touched take memory, 8 KiB as a rule
	guardSize = 64 << 10  // below it: whatever the page size, a function that takes more ends the program instead of writing elsewhere
)

// Make gives the Stack its memory, until Free.
func (s *Stack) Make() error {
	memory, err := syscall.Mmap(-1, 0, guardSize+stackSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_STACK|syscall.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("make a stack of %d bytes for C: %w", stackSize, err)
	}
	if err := syscall.Mprotect(memory[:guardSize], syscall.PROT_NONE); err != nil {
		_ = syscall.Munmap(memory)
		return fmt.Errorf("guard a stack for C: %w", err)
	}
	s.memory = memory
	// Its last byte is at the end of a page, so this is aligned as both ABIs ask (16).
	s.top = uintptr(unsafe.Pointer(unsafe.SliceData(memory))) + uintptr(len(memory))
	return nil
}

// Free takes the memory back. It may be called again, and on the zero Stack.
func (s *Stack) Free() {
	if s.memory != nil {
		_ = syscall.Munmap(s.memory)
		*s = Stack{}
	}
}

// Call calls a C function of one pointer, which may point to Go's memory, and that to more of it that the caller keeps alive. The function is of the
// kind that the package is for.
//
// To the runtime a fault in it is one of the goroutine's, which becomes a panic; and the panic looks for deferred calls in frames of C, where it dies of
// what it reads, without a word on the fault. A goroutine that is pinned to its thread must not panic: the program then ends at once and names the signal
// and the address. What goes beyond the stack ends it by the signal alone, since not even the runtime's handler can write there.
func (s *Stack) Call(fn, arg unsafe.Pointer) {
	if count := counter.Load(); count != nil {
		count.Add(1)
	}
	release()
	procPin()
	call(fn, arg, s.top)
	procUnpin()
	acquire()
}

//go:linkname procPin runtime.procPin
//go:noescape
func procPin() int

//go:linkname procUnpin runtime.procUnpin
//go:noescape
func procUnpin()

// CountIn has the calls of the process counted in count from now on; nil ends that. It is for tests.
func CountIn(count *atomic.Int64) { counter.Store(count) }

var counter atomic.Pointer[atomic.Int64]

// call calls fn(arg) on the stack that ends at top.
//
//go:noescape
func call(fn, arg unsafe.Pointer, top uintptr)
