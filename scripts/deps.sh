#!/usr/bin/env bash
# Installs the Debian packages named as arguments where they are missing, and says plainly what it cannot install.
set -euo pipefail

fail() { echo "make deps: $*" >&2; exit 1; }

missing_tool() { # tool, what it is, where it comes from
    command -v "$1" >/dev/null || fail "$2 ($1) is not on this machine and is not installed from here; get it from $3 and run the command again"
}
missing_tool cargo "Rust 1.95 or newer" "https://rustup.rs"
missing_tool go "Go 1.26 or newer" "https://go.dev/dl"

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
