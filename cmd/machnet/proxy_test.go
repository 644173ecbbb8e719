package main

import (
	"strings"
	"testing"
)

func TestWrongUsageOfTheProxyIsOneSentence(t *testing.T) {
	for args, says := range map[string]string{
		"":                     "0 --listen and 0 --to: one of each is wanted",
		"--listen tcp://:6379": "1 --listen and 0 --to",
		"--listen tcp://:1 --listen tcp://:2 --to machnet://h:1":              "2 --listen and 1 --to",
		"--listen tcp://:1 --to tcp://h:1":                                    "neither end is of Machnet",
		"--listen unix:///a --to tcp://h:1":                                   "neither end is of Machnet",
		"--listen tcp://:1 --to machnet://:1":                                 "which host?",
		"--listen tcp://:1 --to machnet://h:1 --dial-timeout 0":               "--dial-timeout 0s",
		"--listen tcp://:1 --to machnet://h:1 --grace -1s":                    "--grace -1s",
		"--listen tcp://:1 --to machnet://h:1 --log loud":                     "loud",
		"--listen tcp://:1 --to machnet://h:1 more":                           `"more": this command takes flags only`,
		"--listen tcp://:1 --to machnet://h:1 --listen tcp://:2 --to tcp://h": "HOST:PORT is wanted",
	} {
		var out, errs strings.Builder
		code := run(t.Context(), append([]string{"proxy"}, strings.Fields(args)...), &out, &errs)
		if code != 2 || out.String() != "" || strings.Count(errs.String(), "\n") != 1 || !strings.Contains(errs.String(), says) {
			t.Errorf("machnet proxy %s: code %d, %q, %q; want 2 and one line that says %q", args, code, out.String(), errs.String(), says)
		}
	}
}
