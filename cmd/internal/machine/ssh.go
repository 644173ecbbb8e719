package machine

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// SSHInterfaces are the interfaces that carry an SSH session to this machine, by name, each with how that is known. The environment tells:
// ours, and since sudo takes it away, that of the processes that we descend from; and so does the kernel's table of connections to
// port 22, which knows also of sessions that we do not descend from.
func (r Root) SSHInterfaces() (map[string]string, error) {
	reached := map[netip.Addr]string{}
	for _, environment := range r.environments() {
		if fields := strings.Fields(environment); len(fields) == 4 {
			if at, err := netip.ParseAddr(fields[2]); err == nil {
				reached[at.Unmap().WithZone("")] = fmt.Sprintf("SSH_CONNECTION is from %s to %s", fields[0], fields[2])
			}
		}
	}
	for _, c := range r.established(22) {
		if _, known := reached[c.local]; !known {
			reached[c.local] = fmt.Sprintf("a connection from %s to port 22 of %s is open", c.peer, c.local)
		}
	}
	if len(reached) == 0 {
		return nil, nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of the kernel: %w", err)
	}
	found := map[string]string{}
	for _, link := range links {
		list, err := addresses(link)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			if why, carries := reached[a.Prefix.Addr()]; carries && !a.Prefix.Addr().IsLoopback() {
				found[link.Attrs().Name] = why
			}
		}
	}
	return found, nil
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

type connection struct{ local, peer netip.Addr }

// established are the open TCP connections to a local port.
func (r Root) established(port uint16) []connection {
	var all []connection
	for _, table := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		for line := range strings.Lines(r.text(table)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "01" { // TCP_ESTABLISHED; and the heading
				continue
			}
			local, ok := socketAddress(fields[1])
			peer, ok2 := socketAddress(fields[2])
			if ok && ok2 && local.Port() == port {
				all = append(all, connection{local.Addr(), peer.Addr()})
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
