//go:build linux

#include "textflag.h"

// func call(fn, arg unsafe.Pointer, top uintptr)
// C keeps R12 and BP. Go expects nothing else of an assembly function: the wrapper around this one sets R14 and X15 again.
TEXT ·call(SB), NOSPLIT, $0-24
	MOVQ fn+0(FP), AX
	MOVQ arg+8(FP), DI
	MOVQ top+16(FP), CX
	MOVQ SP, R12
	MOVQ CX, SP
	CALL AX
	MOVQ R12, SP
	RET
