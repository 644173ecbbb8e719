#!/usr/bin/env bash
# What the parts of an engine's round cost, for the figures in virtual time (rust/sim/src/cost.rs): callgrind counts the instructions of an
# engine under loads of different make-up, and the costs of the parts are what explains them best (least squares of relative errors).
# Then, on the real clock, how many of them this machine makes in a nanosecond.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "make bench-parts: needs valgrind (apt-get install valgrind)" >&2; exit 1; }
cargo build --release --locked --quiet -p machnet-engine --example parts_instr --example echo_instr
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for load in "idle 5000 1" "echo 5000 1" "echo 20000 4" "echo 20000 32" "send 20000 4" "send 20000 32" "receive 20000 4" "receive 20000 32" \
    "hand-out 5000 1" "hand-out 20000 32" "hand-in 5000 1" "hand-in 20000 32"; do
    valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect='parts_instr::measured*' \
        target/release/examples/parts_instr $load >"$work/did" 2>"$work/log" || { cat "$work/log"; exit 1; }
    { echo "load $load"; cat "$work/did"; sed -n 's/^summary: \([0-9]*\).*/instructions \1/p; s/^totals: \([0-9]*\).*/instructions \1/p' "$work/out" | head -n 1; } >>"$work/all"
done
for round in 1 2 3 4 5; do target/release/examples/echo_instr 1000000 32 >>"$work/pace"; done
python3 - "$work" <<'PY'
import re, sys
loads, parts = [], ["round", "frame_in", "frame_out", "unit_in", "unit_out", "hand_out", "hand_in"]
for line in open(sys.argv[1] + "/all"):
    name, _, value = line.strip().partition(" ")
    if name == "load":
        loads.append((value, {}))
    else:
        loads[-1][1][name] = int(value)
# Each row is a load, divided by its instructions; the right side is then 1.
rows = [[did[part] / did["instructions"] for part in parts] for _, did in loads]
n = len(parts)
system = [[sum(row[i] * row[j] for row in rows) for j in range(n)] + [sum(row[i] for row in rows)] for i in range(n)]
for i in range(n):
    pivot = max(range(i, n), key=lambda r: abs(system[r][i]))
    system[i], system[pivot] = system[pivot], system[i]
    for r in range(n):
        if r != i:
            factor = system[r][i] / system[i][i]
            system[r] = [a - factor * b for a, b in zip(system[r], system[i])]
cost = [system[i][n] / system[i][i] for i in range(n)]
pace = min(int(ns) for ns in re.findall(r": (\d+) ns per echo", open(sys.argv[1] + "/pace").read()))
echo = next(did for load, did in loads if load == "echo 20000 32")
print(f"{'load, messages, in flight':28}{'instructions':>14}{'explained':>12}")
for (load, did), row in zip(loads, rows):
    print(f"{load:28}{did['instructions']:14,}{sum(c * r for c, r in zip(cost, row)):12.3f}")
print(f"\none echo of 64 B takes {pace:.0f} ns with 32 in flight (best of five; four passes)")
print(f"{'part':12}{'instructions':>14}")
for part, instructions in zip(parts, cost):
    print(f"{part:12}{instructions:14.0f}")
PY
