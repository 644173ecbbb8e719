package vm

import (
	"fmt"
	"net"
	"strings"
)

// NIC is one NIC of a guest.
type NIC struct {
	Model   string   // one of the constants below
	Queues  int      // of each direction; 0 means 1. Only Virtio and Igb have more
	Network *Network // nil: a network of its own, with nobody else
}

// The models that DPDK's drivers of real vNICs know.
const (
	Virtio  = "virtio-net-pci" // KVM's, with RSS in QEMU
	Igb     = "igb"            // an Intel 82576; needs Config.QEMU to be Backports
	E1000e  = "e1000e"         // an Intel 82574
	Vmxnet3 = "vmxnet3"        // VMware's
)

func (n NIC) queues() int { return max(n.Queues, 1) }

// device gives QEMU's words for the NIC with this number, without its place on the bus.
func (n NIC) device(number int, mac net.HardwareAddr) string {
	// Nobody boots over a network here, so no device's ROM is run.
	words := []string{n.Model, fmt.Sprintf("id=nic%d,netdev=net%d,mac=%s,romfile=", number, number, mac)}
	if n.Model == Virtio {
		// As large rings as the least common denominator of vNICs has them.
		words = append(words, "rx_queue_size=256,tx_queue_size=256")
		if n.queues() > 1 {
			// A vector for each queue, one for changes of the device's configuration, one for its control queue.
			words = append(words, fmt.Sprintf("mq=on,vectors=%d,rss=on,hash=on", 2*n.queues()+2))
		}
	}
	return strings.Join(words, ",")
}

// tapQueues is how many queues the NIC's tap has. The igb's own are not the tap's, and vmxnet3 damages what comes by a tap's second.
func (n NIC) tapQueues() int {
	if n.Model == Virtio {
		return n.queues()
	}
	return 1
}
