// Package load drives and serves the echo of the benchmarks over any net.Conn, so that every transport runs the
// very same program.
//
// A frame is its own length (4 bytes, little endian, the whole frame), a byte of flags, 3 bytes of the client's own
// (which place in its window the frame has), and filling. Flag 1 asks the server to buffer its replies and to write
// them when nothing more is waiting to be read.
package load

import (
	"encoding/binary"
	"fmt"
)

const (
	// MinSize is the smallest frame in bytes: its header.
	MinSize = 8
	// MaxSize is the largest frame in bytes: Machnet's largest message.
	MaxSize = 8 << 20

	flagBuffered = 1
	bufferSize   = 64 << 10
)

// newFrame makes the frame that is sent over and over: size bytes, with a filling that no compressor or shortcut likes.
func newFrame(size int, buffered bool) []byte {
	frame := make([]byte, size)
	x := uint32(size)
	for i := range frame {
		x = x*1664525 + 1013904223
		frame[i] = byte(x >> 24)
	}
	binary.LittleEndian.PutUint32(frame, uint32(size))
	binary.LittleEndian.PutUint32(frame[4:], 0)
	if buffered {
		frame[4] = flagBuffered
	}
	return frame
}

// setPlace notes the frame's place in the window, below 1 << 24.
func setPlace(frame []byte, place int) {
	frame[5], frame[6], frame[7] = byte(place), byte(place>>8), byte(place>>16)
}

func place(frame []byte) int { return int(frame[5]) | int(frame[6])<<8 | int(frame[7])<<16 }

// parseHeader reads a frame's length and flags.
func parseHeader(header []byte) (size int, buffered bool, err error) {
	size = int(binary.LittleEndian.Uint32(header))
	flags := header[4]
	if size < MinSize || size > MaxSize || flags > flagBuffered {
		return 0, false, fmt.Errorf("echo frame: length %d, flags %#x; a frame is %d to %d bytes with flags 0 or 1: is the peer an echo program of the same version?", size, flags, MinSize, MaxSize)
	}
	return size, flags&flagBuffered != 0, nil
}
