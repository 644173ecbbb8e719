#!/usr/bin/env bash
# Builds the static archives: one relocatable object each, with the functions of its header as the only global names, so
# that two of them (or one and a stranger's) link into one program. Why: two raw Rust archives define std twice.
#
#   scripts/archives.sh            both archives for this machine
#   scripts/archives.sh client     the client alone        scripts/archives.sh core     the whole stack on a simulated NIC
set -euo pipefail
cd "$(dirname "$0")/.."

case "$(uname -m)" in
x86_64) platform=linux_amd64 target=x86_64-unknown-linux-gnu ;;
aarch64) platform=linux_arm64 target=aarch64-unknown-linux-gnu ;;
*) echo "archives: no archive is made for $(uname -m); only for x86_64 and aarch64" >&2; exit 1 ;;
esac

# The linker and objcopy that came with rustc, where they run, else binutils'.
sysroot=$(rustc --print sysroot)
tools="$sysroot/lib/rustlib/$target/bin"
link=(ld) copy=(objcopy)
with_rustc=(env "LD_LIBRARY_PATH=$sysroot/lib")
"${with_rustc[@]}" "$tools/rust-lld" -flavor gnu --version >/dev/null 2>&1 && link=("${with_rustc[@]}" "$tools/rust-lld" -flavor gnu)
"${with_rustc[@]}" "$tools/rust-objcopy" --version >/dev/null 2>&1 && copy=("${with_rustc[@]}" "$tools/rust-objcopy")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
built="${CARGO_TARGET_DIR:-target}/archive"
# No path of this machine may stay in what is shipped, and two checkouts must give the same bytes.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

archive() { # crate, header, output
    local crate=$1 header=$2 out=$3 raw name
    cargo build --locked --quiet --profile archive -p "$crate"
    raw="$built/lib${crate//-/_}.a"
    # The header is the list of exports: a function that it lacks is not there, and one that it names must be.
    grep -oE '\bmachnet_[a-z0-9_]+\(' "$header" | tr -d '(' | sort -u >"$work/exports"
    local roots=() keep=()
    while read -r name; do
        roots+=(-u "$name")
        keep+=("--keep-global-symbol=$name")
    done <"$work/exports"
    "${link[@]}" -r --gc-sections "${roots[@]}" "$raw" -o "$work/$crate.o"
    "${copy[@]}" "${keep[@]}" "$work/$crate.o"
    # std carries LLVM bitcode for Apple's sake; a linker with an older LLVM would stumble over it.
    "${copy[@]}" --strip-unneeded --remove-section=.llvmbc --remove-section=.llvmcmd "$work/$crate.o"
    nm -g --defined-only "$work/$crate.o" | awk '{print $3}' | sort -u >"$work/have"
    if ! diff "$work/exports" "$work/have" >"$work/diff"; then
        echo "archives: $out does not export what $header declares (< declared, > exported):" >&2
        cat "$work/diff" >&2
        exit 1
    fi
    mkdir -p "$(dirname "$out")"
    rm -f "$work/new.a"
    ar rcsD "$work/new.a" "$work/$crate.o"
    # A file that did not change keeps its time: Go would link everything anew.
    cmp -s "$work/new.a" "$out" || mv "$work/new.a" "$out"
    echo "$out: $(stat -c %s "$out") bytes"
}

which=${1:-all}
case $which in all | client) archive machnet-client rust/machnet/include/machnet.h "go/internal/core/lib/$platform/libmachnet.a" ;; esac
case $which in all | core) archive machnet-core rust/machnet-core/include/machnet_host.h "go/machnettest/lib/$platform/libmachnetcore.a" ;; esac
