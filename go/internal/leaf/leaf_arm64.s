//go:build linux

#include "textflag.h"

// func call(fn, arg unsafe.Pointer, top uintptr)
// C keeps R19, R28 (g) and R29; the frame keeps the link register.
TEXT ·call(SB), NOSPLIT, $16-24
	MOVD fn+0(FP), R1
	MOVD arg+8(FP), R0
	MOVD top+16(FP), R2
	MOVD RSP, R19
	MOVD R2, RSP
	CALL (R1)
	MOVD R19, RSP
	RET
