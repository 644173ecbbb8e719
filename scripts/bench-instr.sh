#!/usr/bin/env bash
# Instructions of one 64 B echo through two channels, engines and flows in one thread, counted by callgrind: the difference of a
# long and a short run, so that start and handshake cancel. Counts of code that was inlined go to the file that it comes from.
#
#   scripts/bench-instr.sh [FILES]     with a number: also the so many files that cost most
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "make bench-instr: needs valgrind (apt-get install valgrind)" >&2; exit 1; }
cargo build --release --locked --quiet -p machnet-engine --example echo_instr
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for inflight in 1 32; do
    for echoes in 1000 11000; do
        valgrind --tool=callgrind --callgrind-out-file="$work/$inflight.$echoes" \
            target/release/examples/echo_instr $echoes $inflight >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    done
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

each = {n: costs(f"{work}/{n}.11000") for n in (1, 32)}
for n in each:
    each[n].subtract(costs(f"{work}/{n}.1000"))
stages = collections.defaultdict(collections.Counter)
for n, cost in each.items():
    for file, count in cost.items():
        stages[stage(file)][n] += count / 10_000
print(f"{'instructions per echo':56}{'1 in flight':>14}{'32 in flight':>14}")
for name in sorted(stages, key=lambda s: -stages[s][1]):
    print(f"{name:56}{stages[name][1]:14,.0f}{stages[name][32]:14,.0f}")
print(f"{'all':56}" + "".join(f"{sum(s[n] for s in stages.values()):14,.0f}" for n in each))
for file, count in each[1].most_common(most):
    print(f"{file.removeprefix(here)[-54:]:56}{count / 10_000:14,.0f}{each[32][file] / 10_000:14,.0f}")
PY
