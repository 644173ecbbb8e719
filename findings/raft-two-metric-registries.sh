#!/usr/bin/env bash
# raft v1.8.0 beside raft-boltdb v2.3.0 report their metrics to two registries that know nothing of each other: raft to
# github.com/hashicorp/go-metrics, the store to github.com/armon/go-metrics. A service that sets a global sink in one of them, as each
# library's documentation says, loses the other's figures without a word: no error, no compile-time hint.
# Seen, after one command on a cluster of one server, with a sink in each:
#   hashicorp/go-metrics: raft true, raft.boltdb false
#   armon/go-metrics: raft false, raft.boltdb true
# So a service that uses both feeds both.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
mkdir "$dir/program"
cd "$dir/program"
export GOWORK=off GOFLAGS=-mod=mod GOMODCACHE=$dir/modules
cat > go.mod <<'MOD'
module finding
go 1.25.0
require (
	github.com/armon/go-metrics v0.4.1
	github.com/hashicorp/go-metrics v0.7.0
	github.com/hashicorp/raft v1.8.0
	github.com/hashicorp/raft-boltdb/v2 v2.3.0
)
MOD
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	armon "github.com/armon/go-metrics"
	hashicorp "github.com/hashicorp/go-metrics"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	old, recent := armon.NewInmemSink(time.Hour, time.Hour), hashicorp.NewInmemSink(time.Hour, time.Hour)
	_, err := armon.NewGlobal(armon.DefaultConfig("s"), old)
	must(err)
	_, err = hashicorp.NewGlobal(hashicorp.DefaultConfig("s"), recent)
	must(err)

	store, err := raftboltdb.NewBoltStore(os.Args[1])
	must(err)
	_, transport := raft.NewInmemTransport("a")
	config := raft.DefaultConfig()
	config.LocalID, config.LogLevel = "a", "ERROR"
	snapshots := raft.NewInmemSnapshotStore()
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	must(raft.BootstrapCluster(config, store, store, snapshots, transport, servers))
	node, err := raft.NewRaft(config, &raft.MockFSM{}, store, store, snapshots, transport)
	must(err)
	for node.State() != raft.Leader {
		time.Sleep(10 * time.Millisecond)
	}
	must(node.Apply([]byte("command"), time.Second).Error())

	tell := func(name string, samples []string) {
		var fromRaft, fromStore bool
		for _, sample := range samples {
			if strings.Contains(sample, "raft.boltdb.") {
				fromStore = true
			} else if strings.Contains(sample, "raft.") {
				fromRaft = true
			}
		}
		fmt.Printf("%s: raft %v, raft.boltdb %v\n", name, fromRaft, fromStore)
	}
	var samples []string
	for _, interval := range recent.Data() {
		for name := range interval.Samples {
			samples = append(samples, name)
		}
	}
	tell("hashicorp/go-metrics", samples)
	samples = nil
	for _, interval := range old.Data() {
		for name := range interval.Samples {
			samples = append(samples, name)
		}
	}
	tell("armon/go-metrics", samples)
	must(node.Shutdown().Error())
}
GO
go mod tidy 2> tidy.log || { cat tidy.log; exit 1; }
go build -o finding .
timeout 60 ./finding "$dir/raft.db" | tee seen
diff seen - <<'SEEN' && echo "as described"
hashicorp/go-metrics: raft true, raft.boltdb false
armon/go-metrics: raft false, raft.boltdb true
SEEN
