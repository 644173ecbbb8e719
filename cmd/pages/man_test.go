package main

import "testing"

func TestSentencesWriteWhatIsTypedAsItIsTyped(t *testing.T) {
	for help, want := range map[string]string{
		"the NIC":                        "The NIC.",
		"machnet, tcp or udp":            "machnet, tcp or udp.",
		"machnetd's settings":            "machnetd's settings.",
		"auto: the fastest way":          "auto: the fastest way.",
		"with --link veth, how":          "With --link veth, how.",
		"a virtual device, such as tap0": "A virtual device, such as tap0.",
	} {
		if got := sentence(help, ""); got != want {
			t.Errorf("of %q it makes %q, want %q", help, got, want)
		}
	}
}
