package machnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEachAddressHasItsPartOfTheTimeAndTwoSecondsWhereTheyAreLeft(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		left      time.Duration
		addresses int
		want      time.Duration
	}{
		"the only one has all":        {30 * time.Second, 1, 30 * time.Second},
		"three share":                 {30 * time.Second, 3, 10 * time.Second},
		"two seconds at least":        {5 * time.Second, 5, 2 * time.Second},
		"but no more than there is":   {time.Second, 5, time.Second},
		"what is over stays over":     {-time.Second, 2, -time.Second},
		"the last has what remains":   {time.Millisecond, 1, time.Millisecond},
		"exactly two seconds for all": {4 * time.Second, 2, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := partialDeadline(now, now.Add(tc.left), tc.addresses).Sub(now); got != tc.want {
				t.Errorf("of %v, one of %d addresses has %v, want %v", tc.left, tc.addresses, got, tc.want)
			}
		})
	}
}

func TestADialToAKernelAddressThatNobodyAnswersIsExplained(t *testing.T) {
	sidecar := netip.MustParseAddr("10.0.0.1")
	interfaces := func() ([]net.Addr, error) {
		return []net.Addr{
			&net.IPNet{IP: net.IPv4(192, 0, 2, 5), Mask: net.CIDRMask(24, 32)},
			&net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)},
			&net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)},
		}, nil
	}
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for name, tc := range map[string]struct {
		ip       string
		err      error
		explains bool
	}{
		"silence":                {"192.0.2.5", syscall.ETIMEDOUT, true},
		"nobody has the address": {"192.0.2.5", syscall.EHOSTUNREACH, true},
		"the caller's limit":     {"192.0.2.5", contextError(expired), true},
		"IPv4 within IPv6":       {"::ffff:192.0.2.5", syscall.ETIMEDOUT, true},
		"a sidecar refuses":      {"192.0.2.5", syscall.ECONNREFUSED, false},
		"another host":           {"192.0.2.6", syscall.ETIMEDOUT, false},
		"the sidecar's own":      {"10.0.0.1", syscall.ETIMEDOUT, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Addr{IP: netip.MustParseAddr(tc.ip), Port: 7000}
			err := explainLocal(a, sidecar, tc.err, interfaces)
			if !errors.Is(err, tc.err) || (err != tc.err) != tc.explains {
				t.Fatalf("%v became %v; want it explained: %t", tc.err, err, tc.explains)
			}
			if tc.explains && (!strings.Contains(err.Error(), `"10.0.0.1:7000"`) || !strings.HasPrefix(err.Error(), tc.err.Error())) {
				t.Errorf("%v does not begin with the error, or does not say what to dial", err)
			}
			before, after := opError("dial", nil, a, tc.err).(net.Error), opError("dial", nil, a, err).(net.Error)
			if before.Timeout() != after.Timeout() {
				t.Errorf("Timeout is %t, and was %t before it was explained", after.Timeout(), before.Timeout())
			}
		})
	}
	a := &Addr{IP: netip.MustParseAddr("192.0.2.5"), Port: 7000}
	if err := explainLocal(a, sidecar, io.EOF, interfaces); err != io.EOF {
		t.Errorf("another error became %v", err)
	}
	unknown := func() ([]net.Addr, error) { return nil, errors.New("no interfaces") }
	if err := explainLocal(a, sidecar, syscall.ETIMEDOUT, unknown); err != syscall.ETIMEDOUT {
		t.Errorf("where the interfaces cannot be listed, the error became %v", err)
	}
}
