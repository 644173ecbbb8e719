package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/machnet/machnet/cmd/netns"
)

// A sender on this machine, be it the kernel's or the driver of a virtual machine's NIC, leaves the checksum of UDP to a NIC that is not on the
// way between two devices of one kernel: its mere beginning arrives. Such frames are good; others with a wrong checksum are not.
func TestChecksumsThatNoNICCompletedAreRight(t *testing.T) {
	for name, wired := range map[string]func(*testing.T, int) *wire{"af_packet": newVethWire, "XDP": newXDPWire} {
		t.Run(name, func(t *testing.T) {
			w := wired(t, 1500)
			t.Cleanup(w.close)
			if err := (netns.End{Namespace: w.a.namespace, Device: device}).Address("10.0.0.101/24"); err != nil {
				t.Fatal(err)
			}
			s, err := startSidecar(shortTempDir(t), "10.0.0.2", w.b, "--idle", "adaptive")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.stop)
			var conn net.Conn
			if err := w.a.namespace.Do(func() (err error) { conn, err = net.Dial("udp", "10.0.0.2:40000"); return err }); err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Not Machnet's, which is seen only where the checksum is believed.
			const datagrams = 50
			counted := func(wrong int) {
				until(t, "the frames are counted", func() error {
					if c := s.counters(t); c["rx_bad_machnet"] != datagrams || c["rx_bad_checksum"] != wrong {
						return fmt.Errorf("want %d not Machnet's and %d with a wrong checksum, got %v", datagrams, wrong, c)
					}
					return nil
				})
			}
			for n := range datagrams {
				if _, err := conn.Write(pattern(1 + 27*n)); err != nil {
					t.Fatal(err)
				}
			}
			counted(0)
			// An engine that sleeps has told what its queue had counted.
			until(t, "the queue's counters are told", func() error {
				for _, engine := range s.stats(t).Engines {
					if n := engine.Queue["rx_frames"]; n == nil || *n < datagrams {
						return fmt.Errorf("the queue's counters are %v", engine.Queue)
					}
				}
				return nil
			})

			wrong := make([]byte, 14+20+8+64)
			copy(wrong, w.b.address(t))
			copy(wrong[6:], []byte{2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 0, 20 + 8 + 64, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 101, 10, 0, 0, 2})
			binary.BigEndian.PutUint16(wrong[24:], internetChecksum(wrong[14:34]))
			copy(wrong[34:], []byte{0x9c, 0x40, 0x9c, 0x40, 0, 8 + 64, 0x12, 0x34})
			if err := w.a.packetSocket(t).send(wrong); err != nil {
				t.Fatal(err)
			}
			counted(1)
		})
	}
}
