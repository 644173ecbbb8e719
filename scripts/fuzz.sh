#!/usr/bin/env bash
# Fuzzing with libFuzzer, which needs nightly Rust and cargo-fuzz; nothing else of the project does.
#
#   scripts/fuzz.sh run SECONDS [TARGET]     each target, or one, for so long; the corpus grows in rust/fuzz/corpus
#   scripts/fuzz.sh seeds [TARGET]           rust/fuzz/seeds anew: of corpus and seeds, the few that reach the most
set -euo pipefail
cd "$(dirname "$0")/.."
fuzz=rust/fuzz
targets=(frame flow_ops packet wire)

fail() { echo "make fuzz: $*" >&2; exit 1; }

missing=()
cargo +nightly --version >/dev/null 2>&1 || missing+=("nightly Rust (rustup toolchain install nightly --profile minimal)")
cargo fuzz --version >/dev/null 2>&1 || missing+=("cargo-fuzz (cargo install cargo-fuzz --locked)")
if [ ${#missing[@]} -gt 0 ]; then
    printf -v list '%s and ' "${missing[@]}"
    fail "needs ${list% and }; 'make test' replays the kept inputs without"
fi

# No sanitizer: all that is looked at is safe code but for shared memory, where its guards do not reach.
cargo_fuzz() { local command=$1; shift; cargo +nightly fuzz "$command" --fuzz-dir "$fuzz" --sanitizer none "$@"; }

only() { # target
    [[ " ${targets[*]} " == *" $1 "* ]] || fail "no target '$1'; there are: ${targets[*]}"
    targets=("$1")
}

run() { # seconds
    local seconds=$1 target found
    work=$(mktemp -d) # not local: it is removed at the end of the script
    trap 'rm -rf "$work"' EXIT
    for target in "${targets[@]}"; do
        cargo_fuzz build "$target" || fail "target $target cannot be built; why stands above"
        mkdir -p "$fuzz/corpus/$target" "$fuzz/artifacts/$target"
        touch "$work/began" # artifacts of earlier runs are older
        echo "fuzz $target for $seconds s"
        cargo_fuzz run "$target" "$fuzz/corpus/$target" "$fuzz/seeds/$target" -- -fork=0 -max_total_time="$seconds" \
            -max_len=1024 -len_control=0 -malloc_limit_mb=256 -rss_limit_mb=1024 -timeout=30 -print_final_stats=1 && continue
        found=$(find "$fuzz/artifacts/$target" -type f -newer "$work/began" -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')
        [ -n "$found" ] || fail "target $target failed but left no input to replay; why stands above"
        fail "target $target has a finding; on stable Rust: make fuzz-replay FILE=$found"
    done
}

seeds() {
    local target
    work=$(mktemp -d) # not local: it is removed at the end of the script
    trap 'rm -rf "$work"' EXIT
    for target in "${targets[@]}"; do
        mkdir -p "$fuzz/corpus/$target" "$work/$target"
        cargo_fuzz run "$target" "$work/$target" "$fuzz/corpus/$target" "$fuzz/seeds/$target" -- -merge=1 \
            -max_len=1024 -merge_control_file="$work/control" >"$work/log" 2>&1 || fail "merge of $target: $(tail -n 3 "$work/log")"
        python3 - "$work/control" "$fuzz/seeds/$target" <<'PY'
import hashlib, os, re, sys
control, folder = sys.argv[1:]
lines = open(control).read().splitlines()
files = lines[2:2 + int(lines[0])]
reach, size = {}, {}
for line in lines[2 + len(files):]:
    kind, n, *numbers = line.split()
    if kind == "STARTED":
        size[int(n)] = int(numbers[0])
    else: # FT counts more than COV: which branch, and how often
        reach.setdefault(int(n), set()).update((kind, x) for x in numbers)
every = set().union(*reach.values())
kept, seen, bytes_left = [], set(), 48_000
while len(kept) < 96:
    # Most that is new for the size, in which a run costs as much as 500 bytes.
    gain = {n: len(reach[n] - seen) / (size[n] + 500) for n in reach if size[n] <= bytes_left}
    best = max(sorted(gain), key=lambda n: gain[n], default=None)
    if best is None or gain[best] == 0:
        break
    kept.append(open(files[best], "rb").read())
    seen |= reach.pop(best)
    bytes_left -= size[best]
for name in os.listdir(folder):
    if re.fullmatch("[0-9a-f]{12}", name): # those with a name of their own were findings
        os.remove(os.path.join(folder, name))
for data in kept:
    open(os.path.join(folder, hashlib.sha1(data).hexdigest()[:12]), "wb").write(data)
print(f"{folder}: {len(kept)} of {len(files)} inputs, {sum(map(len, kept))} bytes, reach {len(seen) / len(every):.0%}")
PY
        rm -f "$work/control"
    done
}

case ${1:-} in
run) [ -z "${3:-}" ] || only "$3"; run "$2" ;;
seeds) [ -z "${2:-}" ] || only "$2"; seeds ;;
*) fail "say 'run SECONDS [TARGET]' or 'seeds [TARGET]', not '${1:-}'" ;;
esac
