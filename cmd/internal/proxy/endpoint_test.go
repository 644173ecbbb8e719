package proxy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestEndpoints(t *testing.T) {
	for text, tc := range map[string]struct{ listen, to string }{ // what the error says; none where it is empty
		"tcp://:6379":                   {"", "which host?"},
		"tcp://0.0.0.0:0":               {"", `port "0" is no number from 1 to 65535`},
		"tcp://localhost:6379":          {"", ""},
		"tcp://[::1]:80":                {"", ""},
		"machnet://:6379":               {"", "which host?"},
		"machnet://10.0.0.2:6379":       {"", ""},
		"machnet://server.internal:1":   {"", ""},
		"machnet://0.0.0.0:6379":        {"", "no sidecar has the address 0.0.0.0"},
		"machnet://127.0.0.1:6379":      {"no sidecar has the address 127.0.0.1", "no sidecar has the address 127.0.0.1"},
		"machnet://[::1]:6379":          {"no sidecar has the address ::1", "no sidecar has the address ::1"},
		"unix:///run/x.sock":            {"", ""},
		"unix://x.sock":                 {"an absolute path", "an absolute path"},
		"udp://10.0.0.2:53":             {"is wanted", "is wanted"},
		"10.0.0.2:6379":                 {"is wanted", "is wanted"},
		"":                              {"is wanted", "is wanted"},
		"tcp://10.0.0.2":                {"HOST:PORT is wanted", "HOST:PORT is wanted"},
		"machnet://10.0.0.2:6379/index": {`port "6379/index"`, `port "6379/index"`},
		"tcp://10.0.0.2:65536":          {`port "65536" is no number from 0 to 65535`, `port "65536" is no number from 1 to 65535`},
		"tcp://10.0.0.2:-1":             {`port "-1"`, `port "-1"`},
		"tcp://10.0.0.2:http":           {`port "http"`, `port "http"`},
	} {
		for name, how := range map[string]struct {
			parse func(string) (Endpoint, error)
			says  string
		}{"ParseListen": {ParseListen, tc.listen}, "ParseTo": {ParseTo, tc.to}} {
			e, err := how.parse(text)
			switch {
			case how.says == "" && (err != nil || e.String() != text || e.IsMachnet() != strings.HasPrefix(text, "machnet:")):
				t.Errorf("%s(%q) = %v, %v", name, text, e, err)
			case how.says != "" && (err == nil || !strings.Contains(err.Error(), how.says) || !strings.Contains(err.Error(), `"`+text+`"`)):
				t.Errorf("%s(%q): %v; want an error that quotes it and says %q", name, text, err, how.says)
			}
		}
	}
}

func TestOnlyASocketThatNobodyServesIsReplaced(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "s")
	e, err := ParseListen("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	_ = killed.Close()
	l, err := e.listen(t.Context(), nil)
	if err != nil {
		t.Fatalf("where a killed process left its socket: %v", err)
	}
	defer l.Close()
	if _, err := e.listen(t.Context(), nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("where another listens: %v, want EADDRINUSE", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("it does not any more: %v", err)
	} else {
		_ = c.Close()
	}
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.address = file
	if _, err := e.listen(t.Context(), nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("where a file is: %v, want EADDRINUSE", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}
