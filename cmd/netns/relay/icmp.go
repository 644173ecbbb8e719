package relay

import (
	"encoding/binary"
	"net/netip"
)

// fragmentationNeeded is what a router answers to a packet that does not pass: ICMP "fragmentation needed and DF set" with the MTU that would (RFC 792,
// RFC 1191 section 4), in a frame to whom the packet's came from. It quotes the IP header and what follows, 576 bytes in all at most (RFC 1812
// section 4.3.2.3). Nil where nobody answers, or the frame holds no IPv4 packet whose sender forbids to cut it: what a router may cut is dropped here in
// silence, too.
func fragmentationNeeded(frame []byte, router netip.Addr, mtu int) []byte {
	if !router.IsValid() || len(frame) < ethernetHeader+ipHeader || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv4 {
		return nil
	}
	packet := frame[ethernetHeader:]
	if packet[0] != 0x45 || packet[6]&dontFragment == 0 || packet[9] == protocolICMP { // nobody answers ICMP with ICMP
		return nil
	}
	quoted := packet[:min(len(packet), longestAnswer-ipHeader-icmpHeader)]
	answer := make([]byte, ethernetHeader+ipHeader+icmpHeader+len(quoted))
	copy(answer[0:6], frame[6:12])
	copy(answer[6:12], frame[0:6])
	binary.BigEndian.PutUint16(answer[12:], etherTypeIPv4)

	ip := answer[ethernetHeader:]
	ip[0], ip[8], ip[9] = 0x45, 64, protocolICMP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	from := router.As4()
	copy(ip[12:16], from[:])
	copy(ip[16:20], packet[12:16])
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipHeader]))

	icmp := ip[ipHeader:]
	icmp[0], icmp[1] = 3, 4 // destination unreachable: fragmentation needed and DF set
	binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
	copy(icmp[icmpHeader:], quoted)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return answer
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

const (
	etherTypeIPv4 = 0x0800
	ipHeader      = 20
	icmpHeader    = 8
	protocolICMP  = 1
	dontFragment  = 0x40 // in the first byte of flags and offset
	longestAnswer = 576
)
