#!/usr/bin/env bash
# Makes the static archives anew and compares them with those that git keeps, byte for byte (docs/packaging.md). What differs
# stays in the tree, ready to be added.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "test-archives: not compared: $*"; exit 0; }

pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
rust=$(rustc --version | cut -d' ' -f2)
[ "$rust" = "$pinned" ] || skip "they are made with Rust $pinned (rust-toolchain.toml), and rustc is $rust"
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
[ "$host" = x86_64-unknown-linux-gnu ] || skip "they are made on x86_64-unknown-linux-gnu, and this is $host, where nobody has tried whether the bytes are the same"
[ -x "$sysroot/lib/rustlib/$host/bin/rust-lld" ] || skip "they are made with the linker of rustup's Rust, and $sysroot has none"
git rev-parse --is-inside-work-tree >/dev/null 2>&1 || skip "this is no clone of git"

scripts/archives.sh all every
compared=0 different=()
for pair in linux_amd64:x86_64-unknown-linux-gnu linux_arm64:aarch64-unknown-linux-gnu; do
    [ -d "$sysroot/lib/rustlib/${pair#*:}/lib" ] || { echo "test-archives: ${pair%:*} not compared: see above"; continue; }
    for file in "go/internal/core/lib/${pair%:*}/libmachnet.a" "go/machnettest/lib/${pair%:*}/libmachnetcore.a"; do
        compared=$((compared + 1))
        # Of the index, so that `git add` is enough before a commit.
        git cat-file blob ":$file" 2>/dev/null | cmp -s - "$file" || different+=("$file")
    done
done
if [ ${#different[@]} -ne 0 ]; then
    printf 'test-archives: git does not have what the sources give, which is in the tree now: %s\n' "${different[@]}" >&2
    echo "test-archives: users link what git has; run: make archives && git add ${different[*]}" >&2
    exit 1
fi
echo "test-archives: $compared archives in git are what the sources give"
