package machine

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Session is one of SSH to this machine.
type Session struct {
	Local, Peer netip.Addr
	Interfaces  []string // that carry it: the one that has the local address, and the one by which packets to the peer leave
	Why         string   // how it is known
}

// SSHSessions are the sessions by SSH to this machine. The environment tells: ours, and since sudo takes it away, that of the processes that
// we descend from; and so does the kernel's table of connections to port 22 and to whatever port sshd listens at, which knows also of
// sessions that we do not descend from.
func (r Root) SSHSessions() ([]Session, error) {
	var all []Session
	ports := []uint16{22}
	add := func(local, peer netip.Addr, why string) {
		if !local.IsLoopback() && !slices.ContainsFunc(all, func(s Session) bool { return s.Local == local && s.Peer == peer }) {
			all = append(all, Session{Local: local, Peer: peer, Why: why})
		}
	}
	for _, environment := range r.environments() {
		fields := strings.Fields(environment)
		if len(fields) != 4 {
			continue
		}
		peer, err := netip.ParseAddr(fields[0])
		local, err2 := netip.ParseAddr(fields[2])
		if err == nil && err2 == nil {
			add(local.Unmap().WithZone(""), peer.Unmap().WithZone(""), fmt.Sprintf("SSH_CONNECTION is from %s to %s", fields[0], fields[2]))
		}
		if port, err := strconv.ParseUint(fields[3], 10, 16); err == nil {
			ports = append(ports, uint16(port))
		}
	}
	for _, c := range r.established(ports) {
		add(c.local.Addr(), c.peer, fmt.Sprintf("a connection from %s to port %d of %s is open", c.peer, c.local.Port(), c.local.Addr()))
	}
	if len(all) == 0 {
		return nil, nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of the kernel: %w", err)
	}
	byIndex := map[int]string{}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback == 0 {
			byIndex[link.Attrs().Index] = link.Attrs().Name
		}
		list, err := addresses(link)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			for i := range all {
				if all[i].Local == a.Prefix.Addr() && link.Attrs().Flags&net.FlagLoopback == 0 {
					all[i].Interfaces = append(all[i].Interfaces, link.Attrs().Name)
				}
			}
		}
	}
	for i := range all {
		s := &all[i]
		// The address may be on another interface than the packets take, as one of loopback's, and a rule may look at it.
		routes, err := netlink.RouteGetWithOptions(s.Peer.AsSlice(), &netlink.RouteGetOptions{SrcAddr: s.Local.AsSlice()})
		if err != nil || len(routes) == 0 {
			continue // the session is over, or its address is gone
		}
		if name := byIndex[routes[0].LinkIndex]; name != "" && !slices.Contains(s.Interfaces, name) {
			s.Interfaces = append(s.Interfaces, name)
		}
	}
	return all, nil
}

// listening are the ports that sshd listens at. Only root sees which process a socket is of.
func (r Root) listening() []uint16 {
	sockets := map[string]bool{}
	for _, pid := range r.names("/proc/[0-9]*") {
		switch r.text("/proc/" + pid + "/comm") {
		case "sshd", "dropbear":
			for _, fd := range r.names("/proc/" + pid + "/fd/*") {
				sockets[r.link("/proc/"+pid+"/fd/"+fd)] = true
			}
		}
	}
	var ports []uint16
	for _, fields := range r.sockets("0A") { // TCP_LISTEN
		if at, ok := socketAddress(fields[1]); ok && sockets["socket:["+fields[9]+"]"] {
			ports = append(ports, at.Port())
		}
	}
	return ports
}

// environments are the values of SSH_CONNECTION that this process and those that it descends from were started with.
func (r Root) environments() []string {
	const name = "SSH_CONNECTION"
	all := []string{os.Getenv(name)}
	for pid := os.Getppid(); pid > 1; {
		environment, err := os.ReadFile(r.Path(fmt.Sprintf("/proc/%d/environ", pid)))
		if err != nil {
			break // another user's, and those above it then, too
		}
		for _, entry := range bytes.Split(environment, []byte{0}) {
			if value, is := strings.CutPrefix(string(entry), name+"="); is {
				all = append(all, value)
			}
		}
		// The name is in parentheses and may hold anything; the parent is the second field behind it.
		stat := r.text(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			break
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			break
		}
	}
	return all
}

type connection struct {
	local netip.AddrPort
	peer  netip.Addr
}

// established are the open TCP connections to these local ports, or to one of sshd's.
func (r Root) established(ports []uint16) []connection {
	ports = append(ports, r.listening()...)
	var all []connection
	for _, fields := range r.sockets("01") { // TCP_ESTABLISHED
		local, ok := socketAddress(fields[1])
		peer, ok2 := socketAddress(fields[2])
		if ok && ok2 && slices.Contains(ports, local.Port()) {
			all = append(all, connection{local, peer.Addr()})
		}
	}
	return all
}

// sockets are the lines of the kernel's tables of TCP that are in a state, in fields.
func (r Root) sockets(state string) [][]string {
	var all [][]string
	for _, table := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		for line := range strings.Lines(r.text(table)) {
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == state {
				all = append(all, fields)
			}
		}
	}
	return all
}

// socketAddress reads an address of /proc/net/tcp: words of four bytes, each in the order of this machine (all that Machnet runs on have
// the lowest byte first), and the port.
func socketAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := raw; len(word) > 0; word = word[4:] {
		word[0], word[1], word[2], word[3] = word[3], word[2], word[1], word[0]
	}
	address, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(address.Unmap(), uint16(n)), ok
}
