// Package machnettest runs whole Machnet hosts inside a test process, on a simulated network: engines, transport and
// shared memory as in machnetd, and the ordinary client on top. No sidecar, no NIC, no privileges.
//
//	network, err := machnettest.New(1, machnettest.Link{Loss: 0.01})
//	a, err := network.AddHost(netip.MustParseAddr("10.0.0.1"), 1)
//	b, err := network.AddHost(netip.MustParseAddr("10.0.0.2"), 2)
//	stack, err := a.Attach(ctx)       // dial and listen with it as with a sidecar's
//	defer network.Close()
//
// It links the whole stack as a static archive (make archives) and exists for Linux on amd64 and arm64, with cgo.
package machnettest
