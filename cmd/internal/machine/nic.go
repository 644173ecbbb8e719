package machine

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NIC is an interface of the kernel, or a PCI device of class network that has none, as one that a driver hands to processes.
type NIC struct {
	Name  string // the kernel's interface; "" where there is none
	Index int    // the interface's; 0 where there is none
	Kind  string // of an interface that is no device's: veth, bridge, dummy and so on

	MAC       net.HardwareAddr // nil where there is no interface
	MTU       int              // bytes of an IP packet; 0 where there is no interface
	Up        bool             // set up; whether there is a carrier is Running
	Running   bool
	Addresses []Address
	Gateway   netip.Addr // of the best IPv4 default route by this interface; invalid where there is none

	PCI    string // address of the PCI device, as 0000:00:05.0; "" where it is none
	Vmbus  string // name of the Hyper-V device; "" where it is none
	Driver string // kernel driver that the PCI or Hyper-V device is bound to; "" where there is none
	Vendor uint16 // of the PCI device
	Device uint16 // of the PCI device
	IOMMU  bool   // the PCI device is in an IOMMU group
	NUMA   int    // node; -1 where the machine does not say

	RxQueues, TxQueues int // that the interface has now; 0 where there is none, or nobody says

	// VF is the interface by which packets of this one really go (Azure's accelerated networking: a PCI device beside the Hyper-V
	// device, with the same MAC address); Master is what such a one names. "" where there is none.
	VF, Master string
}

// Address is an address of an interface.
type Address struct {
	Prefix           netip.Prefix // the address itself, and the bits of its subnet
	Peer             netip.Prefix // the other end of a point-to-point link; invalid where there is none
	Broadcast        netip.Addr   // invalid where there is none
	Label            string       // of IPv4
	Scope            int          // as in /etc/iproute2/rt_scopes
	Flags            int          // IFA_F_*
	Valid, Preferred int          // seconds left; Forever
}

// Forever is a lifetime without end.
const Forever = 1<<32 - 1

// NICs are all interfaces but loopback, in the order of their indexes, and then the PCI devices of class network that have none.
func (r Root) NICs() ([]NIC, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of the kernel: %w", err)
	}
	gateways, err := gateways()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]string{}
	for _, link := range links {
		byIndex[link.Attrs().Index] = link.Attrs().Name
	}
	var all []NIC
	for _, link := range links {
		a := link.Attrs()
		if a.Flags&net.FlagLoopback != 0 {
			continue
		}
		nic := NIC{
			Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU, NUMA: -1,
			Up: a.Flags&net.FlagUp != 0, Running: a.RawFlags&unix.IFF_LOWER_UP != 0,
			Gateway: gateways[a.Index], Master: byIndex[a.MasterIndex],
		}
		if nic.Addresses, err = addresses(link); err != nil {
			return nil, err
		}
		if !r.place(&nic, a.ParentDevBus, a.ParentDev) {
			nic.Kind = link.Type()
		}
		all = append(all, nic)
	}
	slices.SortFunc(all, func(a, b NIC) int { return a.Index - b.Index })
	for i := range all {
		for _, other := range all {
			if other.Master == all[i].Name && other.PCI != "" && slices.Equal(other.MAC, all[i].MAC) {
				all[i].VF = other.Name
			}
		}
	}
	return append(all, r.unnamed(all)...), nil
}

// ByName is the interface of this name.
func (r Root) ByName(name string) (NIC, error) {
	return r.one("interface "+name, func(n NIC) bool { return n.Name == name })
}

// ByPCI is the PCI device at an address of the form 0000:00:05.0 or 00:05.0.
func (r Root) ByPCI(address string) (NIC, error) {
	full, err := PCIAddress(address)
	if err != nil {
		return NIC{}, err
	}
	return r.one("NIC at PCI address "+full, func(n NIC) bool { return n.PCI == full })
}

// ByMAC is the interface with a MAC address. Where a Hyper-V device and its VF share it, it is the Hyper-V device.
func (r Root) ByMAC(mac net.HardwareAddr) (NIC, error) {
	return r.one("interface with MAC address "+mac.String(), func(n NIC) bool { return slices.Equal(n.MAC, mac) && n.Master == "" })
}

// Find is the NIC that somebody names in one of these three ways.
func (r Root) Find(word string) (NIC, error) {
	if _, err := PCIAddress(word); err == nil {
		return r.ByPCI(word)
	}
	if mac, err := net.ParseMAC(word); err == nil && len(mac) == 6 {
		return r.ByMAC(mac)
	}
	return r.ByName(word)
}

func (r Root) one(what string, match func(NIC) bool) (NIC, error) {
	all, err := r.NICs()
	if err != nil {
		return NIC{}, err
	}
	var found, known []string
	var nic NIC
	for _, n := range all {
		known = append(known, n.String())
		if match(n) {
			nic, found = n, append(found, n.String())
		}
	}
	switch len(found) {
	case 1:
		return nic, nil
	case 0:
		if len(known) == 0 {
			known = []string{"none"}
		}
		return NIC{}, fmt.Errorf("no %s; this machine's NICs are %s", what, strings.Join(known, ", "))
	}
	return NIC{}, fmt.Errorf("%s: that are %s; name one by its interface or its PCI address", what, strings.Join(found, " and "))
}

// String names a NIC for people.
func (n NIC) String() string {
	switch {
	case n.Name == "":
		return n.PCI
	case n.PCI != "":
		return fmt.Sprintf("%s (%s)", n.Name, n.PCI)
	case n.Vmbus != "":
		return fmt.Sprintf("%s (Hyper-V %s)", n.Name, n.Vmbus)
	}
	return n.Name
}

// IPv4 is the address that names the host to others: one whose subnet has the gateway before others, one that reaches beyond the link before
// those that do not; no secondary one of a subnet, and no link-local one.
func (n NIC) IPv4() (best Address, found bool) {
	rank := func(a Address) int {
		switch {
		case a.Prefix.Contains(n.Gateway):
			return 2
		case a.Scope == unix.RT_SCOPE_UNIVERSE:
			return 1
		}
		return 0
	}
	for _, a := range n.Addresses {
		usable := a.Prefix.Addr().Is4() && !a.Prefix.Addr().IsLinkLocalUnicast() && a.Flags&unix.IFA_F_SECONDARY == 0
		if usable && (!found || rank(a) > rank(best)) {
			best, found = a, true
		}
	}
	return best, found
}

func addresses(link netlink.Link) ([]Address, error) {
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	var all []Address
	for _, a := range list {
		address := Address{
			Prefix: prefix(a.IPNet), Label: a.Label, Scope: a.Scope, Flags: a.Flags,
			Valid: a.ValidLft, Preferred: a.PreferedLft,
		}
		address.Broadcast, _ = netip.AddrFromSlice(a.Broadcast)
		// The kernel names the address itself as the peer of an IPv4 address without one.
		if peer := prefix(a.Peer); peer.IsValid() && peer.Addr() != address.Prefix.Addr() {
			address.Peer = peer
		}
		all = append(all, address)
	}
	return all, nil
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	address, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits)
}
