package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// Serve answers every frame of one connection with the same frame until the peer closes it. It reads buffer bytes at a time at most.
func Serve(conn net.Conn, buffer int) error {
	in, out := bufio.NewReaderSize(conn, buffer), bufio.NewWriterSize(conn, buffer)
	frame := make([]byte, 0, buffer)
	for {
		// Nothing may stay unsent while we wait for more.
		if in.Buffered() < MinSize && out.Buffered() > 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		header, err := in.Peek(MinSize)
		if errors.Is(err, io.EOF) && len(header) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		size, buffered, err := parseHeader(header)
		if err != nil {
			return err
		}
		if in.Buffered() < size && out.Buffered() > 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if cap(frame) < size {
			frame = make([]byte, size)
		}
		frame = frame[:size]
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		if buffered {
			_, err = out.Write(frame)
		} else {
			_, err = conn.Write(frame)
		}
		if err != nil {
			return err
		}
	}
}

// serveMessages is Serve for a connection that keeps the bounds of frames.
func serveMessages(conn MessageConn) error {
	frame := make([]byte, bufferSize)
	for {
		n, err := conn.ReadMessage(frame)
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return nil
		case errors.Is(err, io.ErrShortBuffer):
			frame = make([]byte, n)
			continue
		case err != nil:
			return err
		}
		if _, err := conn.Write(frame[:n]); err != nil {
			return err
		}
	}
}

// ServeMessages is ServeListener for connections that keep the bounds of frames.
func ServeMessages(listener net.Listener, report func(error)) error {
	return serveEach(listener, func(conn net.Conn) error {
		if messages, ok := conn.(MessageConn); ok {
			return serveMessages(messages)
		}
		return fmt.Errorf("messages over %T: it is a stream of bytes", conn)
	}, report)
}

// ServeListener serves every connection of a listener, each in its goroutine, until the listener is closed.
// Errors of single connections go to report. buffer is that of Serve.
func ServeListener(listener net.Listener, buffer int, report func(error)) error {
	return serveEach(listener, func(conn net.Conn) error { return Serve(conn, buffer) }, report)
}

func serveEach(listener net.Listener, serve func(net.Conn) error, report func(error)) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := serve(conn); err != nil {
				report(err)
			}
		}()
	}
}

// ServeUDP answers every datagram with the same datagram until the socket is closed.
func ServeUDP(socket *net.UDPConn) error {
	datagram := make([]byte, bufferSize)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(datagram)
		if err != nil {
			return err
		}
		if err := writeTo(socket, datagram[:n], from); err != nil {
			return err
		}
	}
}

// writeTo sends one datagram. A client that went away shows as a refused port, which is no trouble of the server's.
func writeTo(socket *net.UDPConn, datagram []byte, to netip.AddrPort) error {
	_, err := socket.WriteToUDPAddrPort(datagram, to)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
