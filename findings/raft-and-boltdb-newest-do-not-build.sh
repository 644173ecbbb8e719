#!/usr/bin/env bash
# The newest release of raft (v1.8.0) and the newest of its store raft-boltdb (v2.3.1), both of one vendor, do not compile in one program. raft
# asks for go-metrics v0.7.0; the store imports a package of go-metrics v0.5.4 that v0.7.0 no longer has, and a build holds one version of a
# module. Each compiles alone. `go get -u` leads there without a word, and the error names neither raft nor a version that works.
# Seen:
#   raft alone: builds
#   raft-boltdb alone: builds
#   both: does not build, package github.com/hashicorp/go-metrics/compat is missing
#   raft with raft-boltdb v2.3.0: builds
# So pin raft-boltdb at v2.3.0 beside raft v1.8.0. The two then count in two registries (raft-two-metric-registries.sh).
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
export GOWORK=off GOFLAGS=-mod=mod GOMODCACHE=$dir/modules

# A program that imports raft, the store, or both, at these versions; says whether it builds.
builds() { # what, version of raft or "", version of raft-boltdb or ""
    local what=$1 raft=$2 store=$3 program="$dir/program"
    rm -rf "$program"
    mkdir "$program"
    cd "$program"
    printf 'module finding\ngo 1.25.0\n' >go.mod
    printf 'package main\n' >main.go
    if [ -n "$raft" ]; then
        printf 'require github.com/hashicorp/raft %s\n' "$raft" >>go.mod
        printf 'import _ "github.com/hashicorp/raft"\n' >>main.go
    fi
    if [ -n "$store" ]; then
        printf 'require github.com/hashicorp/raft-boltdb/v2 %s\n' "$store" >>go.mod
        printf 'import _ "github.com/hashicorp/raft-boltdb/v2"\n' >>main.go
    fi
    printf 'func main() {}\n' >>main.go
    if go mod tidy >log 2>&1 && go build -o finding . >>log 2>&1; then
        echo "$what: builds"
    elif grep -q 'does not contain package github.com/hashicorp/go-metrics/compat' log; then
        echo "$what: does not build, package github.com/hashicorp/go-metrics/compat is missing"
    else
        cat log
        echo "$what: does not build, for another reason"
    fi
}

{
    builds "raft alone" v1.8.0 ""
    builds "raft-boltdb alone" "" v2.3.1
    builds "both" v1.8.0 v2.3.1
    builds "raft with raft-boltdb v2.3.0" v1.8.0 v2.3.0
} | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN' && echo "as described"
raft alone: builds
raft-boltdb alone: builds
both: does not build, package github.com/hashicorp/go-metrics/compat is missing
raft with raft-boltdb v2.3.0: builds
SEEN
