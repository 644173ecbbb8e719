package main

import (
	"fmt"
	"path/filepath"

	"github.com/machnet/machnet/cmd/internal/procs"
)

// hosts are the two hosts, on a link of their own that nothing else can see.
func (r *rig) hosts(c benchConfig) (a, b *host, err error) {
	cores, err := procs.Cores()
	if err != nil {
		return nil, nil, err
	}
	a = &host{name: "A", ip: "10.77.0.1", kernelIP: "127.0.0.1", core: cores[0]}
	b = &host{name: "B", ip: "10.77.0.2", kernelIP: "127.0.0.1", core: cores[len(cores)-1]}
	if c.link == linkVeth && c.backends == nil {
		c.backends = []string{backendPacket}
	}
	if c.kernel != kernelLoopback {
		if err := r.layLinks(a, b, c); err != nil {
			asked := "--kernel " + c.kernel
			if c.link == linkVeth {
				asked = "--link veth"
			}
			return nil, nil, fmt.Errorf("%s: %w", asked, err)
		}
	}
	if c.link == linkVeth {
		a, b = a.over(c.backends[0]), b.over(c.backends[0])
	} else {
		socket := filepath.Join(r.folder, "memif.sock")
		a.device, b.device = []string{"--memif", "server:" + socket}, []string{"--memif", "client:" + socket}
	}
	return a, b, nil
}

// localHost is the one host of a benchmark within a sidecar, which takes no core yet, and the first and the last core of this machine;
// otherwise says what one core alone would do to the benchmark.
func (r *rig) localHost(otherwise string) (a *host, first, last int, err error) {
	a, b, err := r.hosts(benchConfig{link: linkLocal, kernel: kernelLoopback})
	if err != nil {
		return nil, 0, 0, err
	}
	first, last = a.core, b.core
	if first == last {
		return nil, 0, 0, fmt.Errorf("one core only: %s; give two", otherwise)
	}
	a.core = -1
	return a, first, last, nil
}
