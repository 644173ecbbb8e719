#!/usr/bin/env bash
# Gets what `make test-vm` boots: a kernel and, unless MODELS is virtio alone, a QEMU with an igb. Both are Debian's packages, unpacked below
# target/vm and not installed: a kernel for guests has no business in this machine's /boot, nor another QEMU in its /usr.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "make test-vm: $*" >&2; exit 1; }

models=${1:?"usage: vm-deps.sh MODELS"}
IFS=, read -ra chosen <<<"$models"
for model in "${chosen[@]}"; do
    case $model in all | virtio | igb | vmxnet3 | e1000e) ;; *) fail "MODELS=$models: there is no model '$model'; say all, or some of virtio, igb, vmxnet3 and e1000e, with commas between" ;; esac
done
scripts/deps.sh busybox-static iproute2 qemu-system-x86
mkdir -p target/vm
folder=$(realpath target/vm)

# The cloud flavour is the smallest of Debian's kernels, and has every module that the guests load. Its package's name carries its version.
if ! compgen -G "$folder/kernel/boot/vmlinuz-*" >/dev/null; then
    name() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
    download() { (cd "$folder" && apt-get download "$(name)" >/dev/null 2>"$folder/apt.log"); }
    # Lists of packages that are missing, or older than the packages that the mirror has, are fetched anew.
    download || { apt-get update >/dev/null 2>&1 || true; download; } || {
        cat "$folder/apt.log" >&2; fail "apt-get could not fetch linux-image-cloud-amd64; its words stand above"; }
    rm -rf "$folder/kernel.new"
    dpkg -x "$folder"/linux-image-*.deb "$folder/kernel.new"
    rm -rf "$folder/kernel" "$folder"/linux-image-*.deb
    mv "$folder/kernel.new" "$folder/kernel"
fi

# Debian 12's QEMU 7.2 has no igb; 8 and newer have. apt keeps lists and packages of its own for this, so that the machine's sources stay as they are.
case ",$models," in *,all,*|*,igb,*) ;; *) exit 0 ;; esac
[ -x "$folder/qemu/usr/bin/qemu-system-x86_64" ] && exit 0
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" >"$apt/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt/lists"
    -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" -o APT::Sandbox::User=root)
{ apt-get "${options[@]}" update && apt-get "${options[@]}" install -y --download-only --no-install-recommends --no-remove \
    -t bookworm-backports qemu-system-x86; } >"$apt/log" 2>&1 || { tail -n 20 "$apt/log" >&2; fail "apt-get could not fetch QEMU from bookworm-backports; its last lines stand above"; }
rm -rf "$folder/qemu.new"
for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$folder/qemu.new"; done
rm -rf "$apt"
mv "$folder/qemu.new" "$folder/qemu"
