package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestsArePassedOnAndAnswered(t *testing.T) {
	d, l := hosts.Two(t)
	// The service answers with a hash of what it got, and then with as much as it got.
	service := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("X-Forwarded-For") != "127.0.0.1" {
			http.Error(w, fmt.Sprint(err, r.Header), http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(body)))
		_, _ = w.Write(body)
	})}
	go func() { _ = service.Serve(l) }()
	defer service.Close()
	target := &url.URL{Scheme: "http", Host: l.Addr().String()}
	proxy := passOn(target, d)
	defer proxy.Transport.(*http.Transport).CloseIdleConnections()
	front := httptest.NewServer(proxy)
	defer front.Close()
	for _, size := range []int{0, 1, 1 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		r, err := front.Client().Post(front.URL, "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if sum := fmt.Sprintf("%x", sha256.Sum256(body)); err != nil || r.Header.Get("X-Sum") != sum || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %s, %d bytes back, %v", size, r.Status, len(got), err)
		}
	}
}

func TestAServiceThatIsNotThereIsABadGateway(t *testing.T) {
	d, l := hosts.Two(t)
	address := l.Addr().String()
	_ = l.Close()
	proxy := passOn(&url.URL{Scheme: "http", Host: address}, d)
	defer proxy.Transport.(*http.Transport).CloseIdleConnections()
	var said bytes.Buffer
	proxy.ErrorLog = log.New(&said, "", 0)
	front := httptest.NewServer(proxy)
	r, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	front.Close()
	if r.StatusCode != http.StatusBadGateway || !strings.Contains(said.String(), "connection refused") {
		t.Errorf("status %s, and the log says %q", r.Status, said.String())
	}
}
