package load

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
)

// Serve answers every frame of one connection with the same frame until the peer closes it.
func Serve(conn net.Conn) error {
	in, out := bufio.NewReaderSize(conn, bufferSize), bufio.NewWriterSize(conn, bufferSize)
	frame := make([]byte, 0, bufferSize)
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

// ServeListener serves every connection of a listener, each in its goroutine, until the listener is closed.
// Errors of single connections go to report.
func ServeListener(listener net.Listener, report func(error)) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := Serve(conn); err != nil {
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
