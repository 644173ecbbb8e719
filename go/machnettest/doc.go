// Package machnettest runs whole Machnet hosts inside a test process, on a simulated network: engines, transport and
// shared memory as in machnetd, and the ordinary client on top. No sidecar, no NIC, no privileges.
//
//	func TestMyService(t *testing.T) {
//		network := machnettest.NewNetwork(t, machnettest.Options{Loss: 0.01, Delay: 50 * time.Microsecond})
//		server, client := network.Host(0), network.Host(1)
//		listener, err := server.Listen("machnet", ":7000")
//		...
//		go myservice.Serve(listener)
//		c := myservice.NewClient(listener.Addr().String(), client.DialContext)
//		...
//		network.Partition(server, client) // and Heal, SetLink, Kill, Restart
//	}
//
// It links the whole stack as a static archive and exists for Linux on amd64 and arm64, with cgo; elsewhere NewNetwork fails the test.
package machnettest
