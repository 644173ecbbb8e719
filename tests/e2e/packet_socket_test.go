package e2e

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket sends and receives whole frames on one device.
type packetSocket struct {
	file *os.File
}

// openPacketSocket opens one on a device of the calling thread's namespace.
func openPacketSocket(device string) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "packet socket on "+device)
	index, err := deviceIndex(device)
	if err == nil {
		// Room for whatever a sender has in flight: what is lost is lost by the dice.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	}
	if err == nil {
		const everyProtocol = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyProtocol & 0xffff, Ifindex: index})
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("packet socket on %s: %w", device, err)
	}
	return &packetSocket{file}, nil
}

// deviceIndex is the number of a device of the calling thread's namespace.
func deviceIndex(device string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

func (s *packetSocket) send(frame []byte) error {
	_, err := s.file.Write(frame)
	return err
}
