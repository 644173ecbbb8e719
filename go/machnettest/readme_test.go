//go:build linux && cgo && (amd64 || arm64)

package machnettest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/machnet/machnet/go/machnettest"
)

// counting is a service as a user of this package has it.
func counting() http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, n.Add(1)) })
}

// works asks the service until it answers.
func works(t *testing.T, c *http.Client) {
	t.Helper()
	within(t, "an answer", func() bool {
		r, err := c.Get("http://10.0.0.1:7000/")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		_, err = io.Copy(io.Discard, r.Body)
		return err == nil
	})
}

func TestCounting(t *testing.T) {
	network := machnettest.NewNetwork(t, machnettest.Options{Loss: 0.01, Delay: 50 * time.Microsecond})
	server, client := network.Host(0), network.Host(1) // 10.0.0.1 and 10.0.0.2, each with its sidecar
	ln, err := server.Listen("machnet", ":7000")       // a net.Listener
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(ln, counting()) // the service, as it is
	c := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}, Timeout: time.Second}
	server.Restart() // its sidecar is killed, and another starts: the listener goes on
	works(t, c)      // also after Partition and Heal, and with SetLink: a slow link, a lossy one
}

// The README shows that test.
func TestTheReadmeShowsATestThatRuns(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("outside the repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, test, _ := strings.Cut(string(here), "\nfunc TestCounting(")
	test, _, _ = strings.Cut(test, "\n}\n")
	if !strings.Contains(string(readme), "func TestCounting("+test+"\n}\n") {
		t.Error("README.md does not have TestCounting as it is here")
	}
}
