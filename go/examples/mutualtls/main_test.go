package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	self tls.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.self = a.sign("authority", true)
	return a
}

func (a *authority) sign(name string, isCA bool) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(key)
	if !isCA {
		parent, signer = a.self.Leaf, a.self.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.self.Leaf)
	return pool
}

func TestCallersAreKnownByTheirCertificates(t *testing.T) {
	d, l := hosts.Two(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	go func() { _ = serve(l, ours.sign("greeter", false), ours.pool()) }()
	to := l.Addr().String()
	for name, tc := range map[string]struct {
		own    tls.Certificate
		server string
		trusts *x509.CertPool
		want   string // what is said
		err    string // or what the error says
	}{
		"one of ours":                     {ours.sign("alice", false), "greeter", ours.pool(), "hello, alice\n", ""},
		"another of ours":                 {ours.sign("bob", false), "greeter", ours.pool(), "hello, bob\n", ""},
		"signed by another authority":     {theirs.sign("alice", false), "greeter", ours.pool(), "", "tls: "},
		"without a certificate":           {tls.Certificate{}, "greeter", ours.pool(), "", "certificate required"},
		"a server of another name":        {ours.sign("alice", false), "banker", ours.pool(), "", "not banker"},
		"a server that the caller doubts": {ours.sign("alice", false), "greeter", theirs.pool(), "", "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			said, err := call(t.Context(), d, to, tc.server, tc.own, tc.trusts)
			switch {
			case tc.err == "" && (err != nil || said != tc.want):
				t.Errorf("the server says %q, %v; want %q", said, err, tc.want)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("the server says %q, %v; want an error that says %q", said, err, tc.err)
			}
		})
	}
}
