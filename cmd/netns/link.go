package netns

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// End is one end of a link: a device with this name in this namespace.
type End struct {
	Namespace *Namespace
	Device    string
}

// Veth joins two ends by a pair of Ethernet devices, up, for IP packets of at most mtu bytes. They have no addresses, and the
// kernel says nothing on them by itself (IPv6 would choose an address and tell): whoever uses them is alone there.
func Veth(a, b End, mtu int) error {
	size := strconv.Itoa(mtu)
	if err := a.Namespace.Run("ip", "link", "add", "name", a.Device, "mtu", size, "type", "veth",
		"peer", "name", b.Device, "mtu", size, "netns", b.Namespace.path()); err != nil {
		return err
	}
	for _, e := range []End{a, b} {
		if err := e.Namespace.Run("ip", "link", "set", "dev", e.Device, "addrgenmode", "none"); err != nil {
			return err
		}
		if err := e.Namespace.Run("ip", "link", "set", "dev", e.Device, "up"); err != nil {
			return err
		}
	}
	return nil
}

// Address gives the end's kernel an address such as 10.0.0.1/24.
func (e End) Address(address string) error {
	return e.Namespace.Run("ip", "address", "add", address, "dev", e.Device)
}

// CutInFrames has the kernel cut what it sends into frames before they leave, as a NIC does. A veth pair otherwise passes TCP's
// segments of up to 64 KiB on in one piece, and a relay would drop 40 frames at once or none.
func (e End) CutInFrames() error {
	return e.Namespace.Run("ethtool", "-K", e.Device, "tso", "off", "gso", "off")
}

// FrameInSoftware has the kernel send whole frames: of the MTU (CutInFrames), and with their checksums in them. On a veth pair it leaves
// these out and says so beside the frame, which a relay in user space cannot pass on.
func (e End) FrameInSoftware() error {
	return e.Namespace.Run("ethtool", "-K", e.Device, "tso", "off", "gso", "off", "tx", "off")
}

// LeastLoss is the step of Forward's loss: what is nearer to 0 drops nothing.
const LeastLoss = 1e-6

// Forward has the kernel pass frames between two devices of a namespace, both ways, and drop each with the probability loss, 0 to 1 in steps of
// LeastLoss. Frames need no address and meet no bridge: what comes in on one device goes out on the other.
func (n *Namespace) Forward(one, other string, loss float64) error {
	const whole = 1 / LeastLoss
	rules := new(strings.Builder)
	fmt.Fprintln(rules, "table netdev forward {")
	for _, way := range [][2]string{{one, other}, {other, one}} {
		fmt.Fprintf(rules, "chain %s {\n type filter hook ingress device %q priority 0\n", way[0], way[0])
		fmt.Fprintf(rules, " numgen random mod %d < %d counter drop\n counter fwd to %q\n}\n", int(whole), int(math.Round(loss*whole)), way[1])
	}
	fmt.Fprintln(rules, "}")
	if err := n.run(rules.String(), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("drop frames in the kernel: %w; it takes nftables (`make deps`) and a kernel with its netdev tables, numgen and fwd", err)
	}
	return nil
}
