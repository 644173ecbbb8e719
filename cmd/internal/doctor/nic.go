package doctor

import (
	"context"
	"fmt"
	"strconv"
)

// checkMTU asks whether the device carries packets of nic.mtu bytes.
func checkMTU(_ context.Context, e *Env) Result {
	if e.settings == nil {
		return skip("nobody says which MTU is wanted: name --config FILE or machnetd's flags behind --")
	}
	want := e.settings.MTU
	expected := fmt.Sprintf("%d bytes (nic.mtu)", want)
	if e.nic != nil && e.nic.Name != "" && !e.physical() && e.nic.MTU < want {
		return Result{Status: Fail, Found: fmt.Sprintf("%s carries %d bytes", e.nic, e.nic.MTU), Expected: expected,
			Command: fmt.Sprintf("ip link set dev %s mtu %d", quoted(e.nic.Name), want)}
	}
	if e.about != nil && e.about.NIC.MTU < want {
		r := Result{Status: Warn, Found: fmt.Sprintf("the NIC takes %d bytes", e.about.NIC.MTU), Expected: expected}
		r.Command, r.Advice = e.change(setMTU, strconv.Itoa(e.about.NIC.MTU))
		return r
	}
	return ok("%d bytes", want)
}

// checkChecksums asks who computes checksums.
func checkChecksums(_ context.Context, e *Env) Result {
	if e.about == nil {
		return skip("only a running sidecar knows what its NIC offers")
	}
	nic, wanted := e.about.NIC, e.settings.ChecksumOffload
	switch {
	case nic.TxChecksum && nic.RxChecksum:
		return ok("by the NIC")
	case !wanted:
		r := Result{Status: Warn, Found: "in software, since nic.checksum_offload = false", Expected: "by the NIC where it can"}
		r.Command, r.Advice = e.change(setChecksum, "true")
		return r
	case nic.TxChecksum:
		return ok("of what is sent by the NIC, of what comes in software: %s verifies none that Machnet could trust", nic.Driver)
	case nic.RxChecksum:
		return ok("of what comes by the NIC, of what is sent in software: %s computes none", nic.Driver)
	}
	return ok("in software: %s offers none", nic.Driver)
}

// leastRing is the descriptors that the least common denominator of the clouds' NICs has.
const leastRing = 256

func checkDescriptors(_ context.Context, e *Env) Result {
	if e.about == nil {
		return skip("only a running sidecar knows what its NIC gives")
	}
	has, wanted := e.about.NIC.Descriptors, e.settings.Descriptors
	switch {
	case has < min(wanted, leastRing):
		return Result{Status: Warn, Found: fmt.Sprintf("%d for each receive queue, of %d that were asked for", has, wanted), Expected: fmt.Sprintf("%d or more", leastRing),
			Advice: fmt.Sprintf("%s gives no more; where it is a virtual device, its machine's settings may (rx_queue_size of virtio)", e.about.NIC.Driver)}
	case has < leastRing:
		r := Result{Status: Warn, Found: fmt.Sprintf("%d for each receive queue: a burst of peers fills that", has), Expected: fmt.Sprintf("%d or more", leastRing)}
		r.Command, r.Advice = e.change(setRing, strconv.Itoa(leastRing))
		return r
	}
	return ok("%d for each receive queue", has)
}

func checkQueues(_ context.Context, e *Env) Result {
	if e.settings == nil {
		return skip("nobody says how many engines are wanted: name --config FILE or machnetd's flags behind --")
	}
	engines := e.settings.Engines
	expected := fmt.Sprintf("a queue and a processor for each of %d engines", engines)
	cores, _ := e.allowed(e.group())
	switch {
	case e.nic != nil && e.settings.NIC[0] == "xdp" && e.nic.RxQueues < engines:
		return Result{Status: Fail, Found: fmt.Sprintf("%s has %d receive queues", e.nic, e.nic.RxQueues), Expected: expected,
			Command: fmt.Sprintf("ethtool -L %s rx %d tx %[2]d || ethtool -L %[1]s combined %[2]d", quoted(e.nic.Name), engines)}
	case len(cores) > 0 && engines > len(cores):
		r := Result{Status: Warn, Found: fmt.Sprintf("%d engines, and %d processors that the sidecar may use", engines, len(cores)), Expected: expected}
		r.Command, r.Advice = e.change(setEngines, strconv.Itoa(len(cores)))
		return r
	case e.about != nil:
		return ok("%d engines on %d queues, %d processors", engines, e.about.NIC.Queues, len(cores))
	}
	return ok("%d engines, %d processors; the NIC's queues are known when it is opened", engines, len(cores))
}
