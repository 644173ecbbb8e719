//go:build linux && (amd64 || arm64)

package leaf

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// What is wrong in C must be seen to be so, not as a failure of the runtime while it looks for deferred calls.
func TestAFaultInCEndsTheProgramAndIsNamed(t *testing.T) {
	if os.Getenv("MACHNET_LEAF_FAULT") != "" {
		defer func() { t.Log("recovered", recover()) }()
		fault()
		t.Fatal("still here")
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), "MACHNET_LEAF_FAULT=1")
	out, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		t.Skip(err) // an emulator that runs this program cannot start it again
	}
	if err == nil || strings.Contains(string(out), "recovered") {
		t.Errorf("the program outlived a fault in C: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "[signal SIGSEGV: segmentation violation code=0x1 addr=0x8 ") {
		t.Errorf("nothing of the signal and its address in\n%s", out)
	}
}

func TestAFunctionGetsItsArgumentAndTheStackThatIsMeantForIt(t *testing.T) {
	fn := function(map[string][]uint32{
		"amd64": {0xc3278948},                         // mov [rdi], rsp; ret
		"arm64": {0x910003e9, 0xf9000009, 0xd65f03c0}, // mov x9, sp; str x9, [x0]; ret
	}[runtime.GOARCH])
	var s Stack
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	var sp uintptr
	s.Call(fn, unsafe.Pointer(&sp))
	if runtime.GOARCH == "amd64" {
		sp += 8 // where it returns to
	}
	if sp != s.top || sp%16 != 0 {
		t.Errorf("it ran on %#x, the stack ends at %#x", sp, s.top)
	}
}

// BenchmarkCall is what a call costs without the function.
func BenchmarkCall(b *testing.B) {
	fn := function(map[string][]uint32{"amd64": {0xc3}, "arm64": {0xd65f03c0}}[runtime.GOARCH])
	var s Stack
	if err := s.Make(); err != nil {
		b.Fatal(err)
	}
	defer s.Free()
	for b.Loop() {
		s.Call(fn, nil)
	}
}

// fault runs a function, called by another, that writes to address 8.
func fault() {
	fn := function(map[string][]uint32{
		// sub rsp, 8; call +3, to what follows the int3s; mov dword [8], 1
		"amd64": {0x08ec8348, 0x000003e8, 0xcccccc00, 0x082504c7, 0x01000000, 0x90000000},
		// sub sp, sp, 16; bl +4; mov x1, 8; str wzr, [x1]
		"arm64": {0xd10043ff, 0x94000001, 0xd2800101, 0xb900003f},
	}[runtime.GOARCH])
	var s Stack
	if err := s.Make(); err != nil {
		panic(err)
	}
	s.Call(fn, nil)
}

// function is machine code to call, since tests cannot have C. It stays until the program ends.
func function(code []uint32) unsafe.Pointer {
	page, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	for i, word := range code {
		binary.LittleEndian.PutUint32(page[4*i:], word)
	}
	if err := syscall.Mprotect(page, syscall.PROT_READ|syscall.PROT_EXEC); err != nil {
		panic(err)
	}
	return unsafe.Pointer(unsafe.SliceData(page))
}
