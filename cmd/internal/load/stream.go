package load

import (
	"fmt"
	"io"
	"net"
	"time"
)

// StreamWrite is what the sender of a stream writes at a time, bytes; Stream's result counts these as messages.
const StreamWrite = 64 << 10

// allOfIt is what the receiver of a stream says at its end.
const allOfIt = "k"

// streamPatience bounds how long what is under way may take when the last byte has been written.
const streamPatience = 60 * time.Second

// Stream sends one stream for so long, and returns when its receiver (SwallowListener's) has said that it has all of it: the seconds of the result are
// those until then.
func Stream(conn net.Conn, duration time.Duration) (*Result, error) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil, fmt.Errorf("a stream over %T, which cannot be half closed", conn)
	}
	found := &Result{Latency: NewHistogram()}
	began := time.Now()
	if err := conn.SetDeadline(began.Add(duration + streamPatience)); err != nil {
		return nil, err
	}
	for block := newFrame(StreamWrite, false); time.Since(began) < duration; found.Messages++ {
		if _, err := conn.Write(block); err != nil {
			return nil, fmt.Errorf("after %d bytes of a stream: %w", found.Messages*StreamWrite, err)
		}
	}
	if err := half.CloseWrite(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(allOfIt))); err != nil {
		return nil, fmt.Errorf("%d bytes of a stream were written, and its receiver did not say that it has them: %w", found.Messages*StreamWrite, err)
	}
	found.All, found.Seconds = found.Messages, time.Since(began).Seconds()
	return found, nil
}

// SwallowListener reads the stream of every connection of a listener to its end, says so, and goes on until the listener is closed. Errors of single
// connections go to report.
func SwallowListener(listener net.Listener, report func(error)) error {
	return serveEach(listener, func(conn net.Conn) error {
		// Reader and writer are no more than that: with their shortcuts a copy would choose other buffers for each transport.
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, StreamWrite)); err != nil {
			return err
		}
		_, err := io.WriteString(conn, allOfIt)
		return err
	}, report)
}
