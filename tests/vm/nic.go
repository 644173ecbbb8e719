package vm

import (
	"fmt"
	"net"
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

// device gives the properties of QEMU's device for the NIC with this number; that is how the command line and the monitor have them alike.
func (n NIC) device(number int, mac net.HardwareAddr) map[string]any {
	properties := map[string]any{
		"driver": n.Model, "id": fmt.Sprintf("nic%d", number), "netdev": fmt.Sprintf("net%d", number), "bus": fmt.Sprintf("port%d", number),
		"mac": mac.String(),
		// Nobody boots over a network here, so no device's ROM is run.
		"romfile": "",
	}
	if n.Model == Virtio {
		// As large rings as the least common denominator of vNICs has them.
		properties["rx_queue_size"], properties["tx_queue_size"] = 256, 256
		if n.queues() > 1 {
			// A vector for each queue, one for changes of the device's configuration, one for its control queue.
			properties["mq"], properties["rss"], properties["hash"], properties["vectors"] = true, true, true, 2*n.queues()+2
		}
	}
	return properties
}

// tapQueues is how many queues the NIC's tap has. The igb's own are not the tap's, and vmxnet3 damages what comes by a tap's second.
func (n NIC) tapQueues() int {
	if n.Model == Virtio {
		return n.queues()
	}
	return 1
}
