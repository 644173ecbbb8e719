package doctor

// The tables of docs/doctor.md are made of these.

func machineChecks() []Check {
	return []Check{
		{"processor", "/proc/cpuinfo", "an instruction set is missing that machnetd or DPDK is compiled for", checkProcessor},
		{"clock-source", clocks, "the clock costs a system call, or a call of the hypervisor", checkClock},
		{"cores", "engines.cores; the cgroup's cpuset and its limit of processor time", "an engine's core cannot be had, or not for all of the time", checkCores},
		{"core-isolation", "engines.idle, engines.cores; /sys/devices/system/cpu/isolated", "(warns) others may run on the core of an engine that never gives it away", checkIsolation},
		{"hugepages", "dpdk.memory_mib; /sys/devices/system/node/*/hugepages", "packet buffers need more than is free on the NIC's node", checkHugepages},
	}
}

func deviceChecks() []Check {
	return []Check{
		{"iommu", "/sys/kernel/iommu_groups, the NIC's group; vfio's no-IOMMU mode", "vfio has no IOMMU for the device, and may not do without", checkIOMMU},
		{"nic-driver", "the NIC's kernel driver in /sys; `machnetd --check`", "the kernel keeps the device, or the DPDK at hand has no driver for it", checkDriver},
		{"device-permissions", "/dev/vfio, /dev/uio", "this user may not open what the device is given by", checkDevicePermissions},
	}
}

func sidecarChecks() []Check {
	return []Check{
		{"settings", "`machnetd --check`", "a setting is wrong", checkSettings},
		{"socket", "the control socket, /proc/self/mountinfo", "there is none, nobody serves it, this user may not connect, or it is mounted as a file", checkSocket},
		{"versions", "an attachment; the query about; `machnetd --check`", "client and sidecar speak different versions of the channel; (warns) the sidecar is older than the program installed", checkVersions},
		{"engines", "the query health", "an engine stands still, or the NIC is gone; (warns) its link is down, or the kernel's device of af_packet", checkEngines},
	}
}

func nicChecks() []Check {
	return []Check{
		{"mtu", "nic.mtu; the interface's MTU; the NIC as it was opened", "the device carries smaller packets than nic.mtu", checkMTU},
		{"checksum-offload", "the query about", "(warns) checksums are computed in software though the NIC might", checkChecksums},
		{"descriptors", "the query about", "(warns) receive rings shorter than 256, or than was asked for", checkDescriptors},
		{"queues", "engines.count, the processors at hand, the interface's queues", "more engines than queues; (warns) more engines than processors", checkQueues},
	}
}

func pathChecks() []Check {
	return []Check{
		{"gateway", "host.gateway, the query peers, the kernel's default route", "nobody answers ARP for the gateway's address", checkGateway},
		{"peer", "a connection to the peer's echo", "the peer does not answer", checkPeer},
		{"udp-ports", "UDP ports of 64 connections, both ways", "packets with some ports of rss.udp_ports do not arrive", checkPorts},
		{"path-mtu", "a message of one packet, and what the sidecars found that passes", "packets of nic.mtu do not pass", checkPathMTU},
		{"rtt", "1000 echoes of 64 bytes", "(warns) the median or the 99th percentile is not that of a cloud's zone", checkRTT},
		{"loss", "counters of the connection that was measured", "more than 1 % of the packets was lost; (warns) more than 0.1 %", checkLoss},
		{"reordering", "counters of the connection that was measured", "(warns) more than 1 % of the packets came out of order", checkOrder},
		{"rss-hashed", "frames of each receive queue and searches given up, since the sidecar began", "a queue gets nothing: the NIC does not hash UDP ports, or not with every port", checkHashed},
		{"rss-uniform", "searches, and how often they had to be repeated, since the sidecar began", "(warns) a queue is hit much more rarely than another", checkUniform},
	}
}

func endChecks() []Check {
	return []Check{
		{"steal", "/proc/stat, over the run", "the hypervisor took more than 10 % of the processors' time; (warns) more than 1 %", checkSteal},
	}
}
