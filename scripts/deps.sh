#!/usr/bin/env bash
# Installs the Debian packages named as arguments where they are missing, and says plainly what it cannot install: Rust and
# Go, which must be there and new enough.
set -euo pipefail

fail() { echo "make deps: $*" >&2; exit 1; }

# The versions stand where the tools themselves read them.
cd "$(dirname "$0")/.."
need_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
need_go=$(sed -n 's/^go //p' go.work)

at_least() { printf '%s\n%s\n' "$1" "$2" | sort -V -C; } # needed, there
missing_tool() { # tool, what it is, where it comes from
    command -v "$1" >/dev/null || fail "$2 ($1) is not on this machine and is not installed from here; get it from $3 and run the command again"
}
missing_tool cargo "Rust $need_rust or newer" "https://rustup.rs"
missing_tool rustc "Rust $need_rust or newer" "https://rustup.rs"
missing_tool go "Go $need_go or newer" "https://go.dev/dl"

# Asked in this folder, where rustup and go choose another version than elsewhere, or get one, or say why not.
rust=$(rustc --version) || fail "rustc does not run here; its words stand above"
rust=$(cut -d' ' -f2 <<<"$rust")
at_least "$need_rust" "$rust" || fail "Rust $need_rust or newer is needed, and rustc is $rust; run: rustup update stable (https://rustup.rs; $(command -v rustc) is the one asked)"
go=$(go env GOVERSION) || fail "go does not run here; its words stand above"
go=${go#*go}
at_least "$need_go" "$go" || fail "Go $need_go or newer is needed, and go is $go; get it from https://go.dev/dl ($(command -v go) is the one asked)"

missing=()
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || fail "missing: ${missing[*]} (Debian's names); this machine has no apt-get: install them with its own package manager"
root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing: ${missing[*]}; run as root: apt-get install ${missing[*]}"
    root=(sudo)
fi
echo "make deps: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
if ! install; then
    "${root[@]}" apt-get update >/dev/null 2>&1 || true
    install || { tail -n 20 "$log" >&2; fail "apt-get could not install ${missing[*]}; its last lines stand above"; }
fi
