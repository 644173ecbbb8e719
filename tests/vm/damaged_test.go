package vm

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sendDamaged sends UDP packets on the network whose checksum is wrong, in frames that are right otherwise.
func (n *Network) sendDamaged(count int, to netip.Addr, mac net.HardwareAddr) error {
	frame := damaged(netip.MustParseAddr("10.0.0.77"), to, mac)
	return n.Namespace.Do(func() error {
		bridge, err := net.InterfaceByName("br0")
		if err != nil {
			return err
		}
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		for range count {
			if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: bridge.Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// damaged is an Ethernet frame with a UDP packet whose checksum fits anything but it.
func damaged(from, to netip.Addr, mac net.HardwareAddr) []byte {
	const payload = 64
	udp := binary.BigEndian.AppendUint16(nil, 31580)
	udp = binary.BigEndian.AppendUint16(udp, 31580)
	udp = binary.BigEndian.AppendUint16(udp, 8+payload)
	udp = append(udp, 0, 0)
	udp = append(udp, make([]byte, payload)...)
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, unix.IPPROTO_UDP, 0, 8+payload)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...))^0x0100)

	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(udp)))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))

	frame := append(append([]byte(nil), mac...), 0x02, 0, 0, 0, 0, 77, 0x08, 0x00)
	return append(append(frame, ip...), udp...)
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(bytes []byte) uint16 {
	sum := uint32(0)
	for ; len(bytes) > 0; bytes = bytes[2:] {
		sum += uint32(binary.BigEndian.Uint16(bytes))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
