#!/usr/bin/env bash
# raft-wal v0.4.0 (hashicorp/raft's log store): an entry whose encoding passes 64 MiB is stored and acknowledged, and can never be read.
# StoreLogs checks no size; reading refuses a frame above MaxEntrySize (64 MiB). The entries before and after it stay readable. A leader
# that stores such an entry answers "committed", and no follower can be brought past it.
# Seen with raft v1.7.3, by two processes, one that writes and one that reads:
#   store 2: 67108864 bytes, acknowledged
#   read 2: WAL is corrupt: frame header indicates a record larger than MaxEntrySize (67108864 bytes)
# So a raft transport or state machine must bound what it applies well below that.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
mkdir "$dir/program"
cd "$dir/program"
export GOWORK=off GOFLAGS=-mod=mod GOMODCACHE=$dir/modules
cat > go.mod <<'MOD'
module finding
go 1.24
require (
	github.com/hashicorp/raft v1.7.3
	github.com/hashicorp/raft-wal v0.4.0
)
MOD
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

var sizes = []int{1 << 20, 64 << 20, 1 << 20}

func main() {
	log, err := wal.Open(os.Args[2])
	if err != nil {
		panic(err)
	}
	for i, size := range sizes {
		entry := raft.Log{Index: uint64(i + 1), Term: 1}
		if os.Args[1] == "write" {
			entry.Data = make([]byte, size)
			if err := log.StoreLogs([]*raft.Log{&entry}); err != nil {
				fmt.Printf("store %d: %v\n", i+1, err)
				continue
			}
			fmt.Printf("store %d: %d bytes, acknowledged\n", i+1, size)
			continue
		}
		var got raft.Log
		if err := log.GetLog(entry.Index, &got); err != nil {
			fmt.Printf("read %d: %v\n", i+1, err)
			continue
		}
		fmt.Printf("read %d: %d bytes\n", i+1, len(got.Data))
	}
}
GO
go mod tidy 2> tidy.log || { cat tidy.log; exit 1; }
go build -o finding .
mkdir wal
{ timeout 60 ./finding write wal; timeout 60 ./finding read wal; } | tee seen
diff seen - <<'SEEN' && echo "as described"
store 1: 1048576 bytes, acknowledged
store 2: 67108864 bytes, acknowledged
store 3: 1048576 bytes, acknowledged
read 1: 1048576 bytes
read 2: WAL is corrupt: frame header indicates a record larger than MaxEntrySize (67108864 bytes)
read 3: 1048576 bytes
SEEN
