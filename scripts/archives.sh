#!/usr/bin/env bash
# Builds the static archives that git keeps and Go packages link (docs/packaging.md): one relocatable object each, with the
# functions of its header as the only global names, so that two of them (or one and a stranger's) link into one program.
# Why: two raw Rust archives define std twice.
#
#   scripts/archives.sh [all|client|core] [own|every]
#
# client is the C and Go client, core the whole stack on a simulated NIC; own is this machine's platform, every each that the
# installed Rust can make. Without arguments: all own.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "archives: $*" >&2; exit 1; }

which=${1:-all} where=${2:-own}
case $which in all | client | core) ;; *) fail "no archive '$which'; say all, client or core" ;; esac
case $where in own | every) ;; *) fail "no platforms '$where'; say own or every" ;; esac

# What the user has set must not reach what is shipped: only the flags below do.
unset RUSTFLAGS CARGO_BUILD_TARGET
export CARGO_INCREMENTAL=0
# No path of this machine may stay in it, and two clones must give the same bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$PWD=."$'\x1f'"--remap-path-prefix=$cargo_home=cargo"

# The linker and objcopy that came with rustc work for every platform; binutils', where rustc has none, for this one.
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
tools="$sysroot/lib/rustlib/$host/bin"
with_rustc=(env "LD_LIBRARY_PATH=$sysroot/lib")
link=(ld) copy=(objcopy)
"${with_rustc[@]}" "$tools/rust-lld" -flavor gnu --version >/dev/null 2>&1 && link=("${with_rustc[@]}" "$tools/rust-lld" -flavor gnu)
"${with_rustc[@]}" "$tools/rust-objcopy" --version >/dev/null 2>&1 && copy=("${with_rustc[@]}" "$tools/rust-objcopy")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# On 64-bit machines these are second names of the plain functions, and musl from 1.2.4 on links only the plain ones.
plain=()
for name in fstat lseek mmap open stat; do plain+=("--redefine-sym=${name}64=$name"); done

# A section per kind instead of one per function: a fifth of the client would be their headers and names.
cat >"$work/merge.ld" <<'END'
SECTIONS {
  .text : { *(.text .text.*) }
  .rodata : { *(.rodata .rodata.*) }
  .data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) }
  .data : { *(.data .data.*) }
  .bss : { *(.bss .bss.*) }
  .tdata : { *(.tdata .tdata.*) }
  .tbss : { *(.tbss .tbss.*) }
  /DISCARD/ : { *(.gcc_except_table .gcc_except_table.*) }
}
END

archive() { # crate, header, which names it may import, most bytes, Rust's name of the platform, output
    local crate=$1 header=$2 imports=$3 limit=$4 target=$5 out=$6 raw name size
    cargo build --locked --quiet --profile archive --target "$target" -p "$crate"
    raw="${CARGO_TARGET_DIR:-target}/$target/archive/lib${crate//-/_}.a"
    # The header is the list of exports: a function that it lacks is not there, and one that it names must be.
    grep -oE '\bmachnet_[a-z0-9_]+\(' "$header" | tr -d '(' | sort -u >"$work/exports"
    local roots=() keep=()
    while read -r name; do
        roots+=(-u "$name")
        keep+=("--keep-global-symbol=$name")
    done <"$work/exports"
    # Panics abort, so nothing is unwound; with its tables GNU ld would keep the unwinder as well.
    "${copy[@]}" --remove-section=.eh_frame --remove-section=.rela.eh_frame "$raw" "$work/raw.a"
    "${link[@]}" -r --gc-sections "${roots[@]}" -T "$work/merge.ld" "$work/raw.a" -o "$work/$crate.o"
    "${copy[@]}" "${keep[@]}" "$work/$crate.o"
    # std carries LLVM bitcode for Apple's sake; a linker with an older LLVM would stumble over it. What held mergeable strings
    # among other constants must not be called mergeable.
    "${copy[@]}" "${plain[@]}" --set-section-flags .rodata=alloc,readonly,data --strip-unneeded --remove-section=.llvmbc --remove-section=.llvmcmd --remove-section=.comment --remove-section=.llvm_addrsig "$work/$crate.o"

    nm -g --defined-only "$work/$crate.o" | awk '{print $3}' | sort -u >"$work/have"
    diff "$work/exports" "$work/have" >"$work/diff" || fail "$out does not export what $header declares (< declared, > exported):
$(cat "$work/diff")"
    sed -nE "s/^($imports): //p" scripts/archive-imports.txt | tr ' ' '\n' | sort -u >"$work/may"
    nm -u "$work/$crate.o" | awk '{print $2}' | sort -u | comm -23 - "$work/may" >"$work/foreign"
    [ ! -s "$work/foreign" ] || fail "$out imports $(paste -sd' ' "$work/foreign"), which scripts/archive-imports.txt does not list; add it there if glibc 2.31 and musl 1.2 have it, else do without"
    ! strings -a "$work/$crate.o" | grep -F -e "$PWD/rust/" -e "$cargo_home/registry/" -e "$sysroot/" >"$work/paths" || fail "$out names folders of this machine:
$(head -n 5 "$work/paths")"
    mkdir -p "$(dirname "$out")"
    rm -f "$work/new.a"
    ar rcsD "$work/new.a" "$work/$crate.o"
    size=$(stat -c %s "$work/new.a")
    [ "$size" -le "$limit" ] || fail "$out would have $size bytes, and its limit is $limit; see what grew: nm --size-sort $raw"
    # A file that did not change keeps its time: Go would link everything anew.
    cmp -s "$work/new.a" "$out" || mv "$work/new.a" "$out"
    echo "$out: $size bytes"
}

platform() { # Go's name, Rust's name
    case $which in all | client) archive machnet-client rust/machnet/include/machnet.h client 262144 "$2" "go/internal/core/lib/$1/libmachnet.a" ;; esac
    case $which in all | core) archive machnet-core rust/machnet-core/include/machnet_host.h 'client|core' 1048576 "$2" "go/machnettest/lib/$1/libmachnetcore.a" ;; esac
}

known=0
for pair in linux_amd64:x86_64-unknown-linux-gnu linux_arm64:aarch64-unknown-linux-gnu; do
    target=${pair#*:}
    [ "$target" = "$host" ] && known=1
    [ "$where" = every ] || [ "$target" = "$host" ] || continue
    if [ ! -d "$sysroot/lib/rustlib/$target/lib" ]; then
        echo "archives: ${pair%:*} is not made: this Rust has no standard library for $target; run: rustup target add $target"
        continue
    fi
    platform "${pair%:*}" "$target"
done
[ $known = 1 ] || [ "$where" = every ] || fail "no archive is made for $host; only for x86_64 and aarch64 with glibc"
