package relay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// socket sends and receives whole frames on one device. The kernel does not give it back what it has sent itself.
type socket struct {
	fd     int
	device string
}

// openSocket opens one on a device of the calling thread's namespace.
func openSocket(device string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	}
	if err == nil {
		// Room for whatever a sender has in flight: what is lost is lost by the dice, and what is not is counted as missed.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer)
	}
	if err == nil {
		const everyProtocol = (unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8) & 0xffff // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyProtocol, Ifindex: int(request.Uint32())})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("packet socket on %s: %w", device, err)
	}
	return &socket{fd: fd, device: device}, nil
}

const socketBuffer = 64 << 20

// receive reads one frame; 0 bytes: there is none.
func (s *socket) receive(into []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, into)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENETDOWN): // a device that goes down says so once
			return 0, nil
		case errors.Is(err, unix.EINTR):
		default:
			return 0, fmt.Errorf("receive on %s: %w", s.device, err)
		}
	}
}

// send writes one frame, and says whether there was room for it. A device that is down, or too narrow for the frame, has none.
func (s *socket) send(frame []byte) (bool, error) {
	for {
		_, err := unix.Write(s.fd, frame)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EMSGSIZE):
			return false, nil
		case errors.Is(err, unix.EINTR):
		default:
			return false, fmt.Errorf("send on %s: %w", s.device, err)
		}
	}
}

// missed is how many frames found no room in the socket since it was last asked.
func (s *socket) missed() int64 {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0 // a question about an open socket of ours: only a closed relay's has no answer
	}
	return int64(stats.Drops)
}
