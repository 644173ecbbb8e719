package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestsShareOneConnection(t *testing.T) {
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			d, l := hosts.Two(t)
			var mu sync.Mutex
			peers := make(map[string]bool)
			server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				peers[r.RemoteAddr] = true
				mu.Unlock()
				if r.ProtoMajor != 2 || (r.TLS != nil) != (scheme == "https") {
					http.Error(w, r.Proto, http.StatusHTTPVersionNotSupported)
					return
				}
				_, _ = io.Copy(w, r.Body)
			}))
			// httptest knows a certificate, which names example.com.
			secure := httptest.NewTLSServer(nil)
			defer secure.Close()
			server.TLSConfig = &tls.Config{Certificates: secure.TLS.Certificates}
			go func() {
				if scheme == "https" {
					_ = server.ServeTLS(l, "", "")
				} else {
					_ = server.Serve(l)
				}
			}()
			defer server.Close()
			trust := secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			trust.ServerName = "example.com"
			trust.NextProtos = nil
			c := newClient(d, trust)
			defer c.CloseIdleConnections()
			url := scheme + "://" + l.Addr().String()
			post := func(size int) {
				body := bytes.Repeat([]byte{byte(size)}, size)
				r, err := c.Post(url, "application/octet-stream", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Body.Close()
				got, err := io.ReadAll(r.Body)
				if err != nil || r.StatusCode != http.StatusOK || !bytes.Equal(got, body) {
					t.Errorf("%d bytes: %s, %d bytes back, %v", size, r.Status, len(got), err)
				}
			}
			post(1) // the connection that the others share
			var all sync.WaitGroup
			for i := range 32 {
				all.Go(func() { post(i * 33_000) })
			}
			all.Wait()
			if len(peers) != 1 {
				t.Errorf("33 requests came over %d connections, want 1", len(peers))
			}
		})
	}
}
