#!/usr/bin/env bash
# Instructions of one 64 B echo through two channels, engines and flows in one thread, counted by callgrind: the difference of a
# long and a short run of the echoes alone, so that their beginning cancels, and without the handshakes, since what 10 000 of these cost
# differs by millions from run to run. Counts of code that was inlined go to the file that it comes from.
# Then the same with eight engines on each side, with 40 channels at each engine, and with 10 000 connections of which one is used, or 16 in
# turn; these beside 16 alone, because taking turns has a price of its own.
#
#   scripts/bench-instr.sh [FILES]     with a number: also the so many files that cost most
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "make bench-instr: needs valgrind (apt-get install valgrind)" >&2; exit 1; }
cargo build --release --locked --quiet -p machnet-engine --example echo_instr
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count() { # NAME SHORT LONG, then what follows the echoes: in flight, bytes, engines, connections of each, of these used, other channels
    local name=$1 short=$2 long=$3
    shift 3
    for echoes in "$short" "$long"; do
        valgrind --tool=callgrind --toggle-collect="echo_instr::Hosts::exchange" --callgrind-out-file="$work/$name.$echoes" \
            target/release/examples/echo_instr "$echoes" "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
        mv "$work/$name.$echoes" "$work/$name.$([ "$echoes" = "$short" ] && echo short || echo long)"
    done
}
for inflight in 1 32; do
    count $inflight 1000 11000 $inflight
    count $inflight-engines 500 1750 $inflight 64 8
    count $inflight-channels 1000 11000 $inflight 64 1 1 1 39
    count $inflight-idle 1000 11000 $inflight 64 1 10000 1
    count $inflight-sixteen 1000 11000 $inflight 64 1 16
    count $inflight-turns 1000 11000 $inflight 64 1 10000 16
done
python3 - "$work" "${1:-0}" <<'PY'
import collections, os, re, sys
work, most = sys.argv[1], int(sys.argv[2])
here = os.getcwd() + "/"

def costs(path):
    """Instructions by the file that a line belongs to."""
    names, cost, file, inclusive = {}, collections.Counter(), "", False
    for line in open(path):
        if m := re.match(r"(fl|fi|fe|cfi|cfl)=\((\d+)\)(?: (.*))?", line):
            if m[3]:
                names[m[2]] = m[3]
            if m[1][0] == "f":
                file = names[m[2]]
        elif line.startswith("calls="):
            inclusive = True # the next line is what the callee cost
        elif m := re.match(r"[+\-*\d]\S* (\d+)$", line):
            if not inclusive:
                cost[file] += int(m[1])
            inclusive = False
    return cost

def stage(file):
    for part, name in (("rust/shm/", "channel (rust/shm)"), ("rust/flow/", "flow (rust/flow)"), ("rust/wire/", "wire (rust/wire)"),
                       ("rust/engine/src", "engine (rust/engine)"), ("rust/engine/examples", "applications, plain queues between the engines")):
        if part in file:
            return name
    return "Rust's and C's libraries, inlined or called by these"

def each(name, echoes):
    cost = costs(f"{work}/{name}.long")
    cost.subtract(costs(f"{work}/{name}.short"))
    return {file: n / echoes for file, n in cost.items()}

base = {n: each(n, 10_000) for n in (1, 32)}
stages = collections.defaultdict(collections.Counter)
for n, cost in base.items():
    for file, count in cost.items():
        stages[stage(file)][n] += count
print(f"{'instructions per echo':56}{'1 in flight':>18}{'32 in flight':>18}")
for name in sorted(stages, key=lambda s: -stages[s][1]):
    print(f"{name:56}{stages[name][1]:18,.0f}{stages[name][32]:18,.0f}")
all = {n: sum(cost.values()) for n, cost in base.items()}
print(f"{'all':56}{all[1]:18,.0f}{all[32]:18,.0f}")
def row(name, what, beside):
    counts = {n: sum(each(f"{n}-{name}", 10_000).values()) for n in all}
    print(f"{what:56}" + "".join(f"{c:10,.0f} {c / beside[n] - 1:+6.1%} " for n, c in counts.items()))
    return counts
row("engines", "8 engines on each side, as many in flight at each", all)
row("channels", "40 channels at each engine, of which one is used", all)
row("idle", "10 000 connections, of which one is used", all)
sixteen = row("sixteen", "16 connections, used in turn", all)
row("turns", "10 000 connections, of which 16 are used in turn", sixteen)
for file, count in sorted(base[1].items(), key=lambda item: -item[1])[:most]:
    print(f"{file.removeprefix(here)[-54:]:56}{count:18,.0f}{base[32].get(file, 0):18,.0f}")
PY
