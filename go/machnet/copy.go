package machnet

import (
	"context"
	"io"
	"sync"

	"github.com/machnet/machnet/go/internal/core"
)

// The buffers of ReadFrom and WriteTo. Each goroutine that copies holds one only while it has bytes, or may have them any moment, so that ten
// thousand quiet connections of a proxy hold little.
var (
	largeCopies = sync.Pool{New: func() any { return new([writeChunk]byte) }}
	smallCopies = sync.Pool{New: func() any { return new([smallCopy]byte) }}
)

// smallCopy is as much as ReadFrom holds while it waits for a reader that gave as little the last time.
const smallCopy = 8 << 10

// ReadFrom sends what r reads until io.EOF, or an error, and returns how many bytes were sent. Each Read of r becomes one message, of
// 64 KiB at most, sent at once. It is what io.Copy to a Conn uses, and package net/http for bodies, where it saves one of two copies and
// the buffer. Its errors are those of Write and of r; io.EOF of r is none.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	var sent int64
	for last := 0; ; {
		read, n, err := c.readOnce(r, last)
		sent += int64(n)
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		last = read
	}
}

// readOnce moves what one Read of r gives, into a buffer for as much as it gave the last time.
func (c *Conn) readOnce(r io.Reader, last int) (read, sent int, err error) {
	var p []byte
	if last >= smallCopy {
		buf := largeCopies.Get().(*[writeChunk]byte)
		defer largeCopies.Put(buf)
		p = buf[:c.whole]
	} else {
		buf := smallCopies.Get().(*[smallCopy]byte)
		defer smallCopies.Put(buf)
		p = buf[:]
	}
	read, err = r.Read(p)
	if read > 0 {
		var writeErr error
		if sent, writeErr = c.Write(p[:read]); writeErr != nil {
			err = writeErr
		}
	}
	return read, sent, err
}

// WriteTo gives w everything that the peer sends until its end, and returns how many bytes w took. It is what io.Copy from a Conn uses.
// While nothing comes it holds no buffer, and what has come it gives to w at once, 64 KiB at most in one Write. Its errors are those of
// Read, but for io.EOF, which is none, and of w.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var given int64
	for {
		err := c.awaitData()
		for more := true; more && err == nil; {
			var n int
			n, more, err = c.writeOnce(w)
			given += int64(n)
		}
		if err == io.EOF {
			return given, nil
		}
		if err != nil {
			return given, err
		}
	}
}

// awaitData returns when there is something to read, or never will be.
func (c *Conn) awaitData() error {
	c.rd.mu.Lock()
	defer c.rd.mu.Unlock()
	var info core.RecvInfo
	_, err := c.receive(context.Background(), nil, core.Message, &info)
	if err == io.ErrShortBuffer { // no message but an empty one, which is nothing in a stream, fits no room
		return nil
	}
	return c.readError(err)
}

// writeOnce moves what one receive gives, and says whether there is more at once.
func (c *Conn) writeOnce(w io.Writer) (given int, more bool, err error) {
	buf := largeCopies.Get().(*[writeChunk]byte)
	defer largeCopies.Put(buf)
	var info core.RecvInfo
	c.rd.mu.Lock()
	n, err := c.receive(context.Background(), buf[:], core.Stream, &info)
	c.rd.mu.Unlock()
	if err != nil {
		return 0, false, c.readError(err)
	}
	given, err = w.Write(buf[:n])
	if err == nil && given < n {
		err = io.ErrShortWrite
	}
	return given, info.Flags&core.More != 0, err
}
