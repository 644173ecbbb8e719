#!/usr/bin/env bash
# Makes the Debian packages machnet, libmachnet<ABI> and libmachnet-dev of what `make build` made, for this machine's Debian and
# architecture. The same commit gives the same bytes.
#   scripts/deb.sh VERSION ABI ARCHIVE OUTDIR
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 abi=$2 archive=$3 out=$(realpath -m "$4")

fail() { echo "make deb: $*" >&2; exit 1; }
for file in machnetd machnet "libmachnet.so.$abi"; do [ -e "bin/$file" ] || fail "bin/$file is not there; run make build first"; done

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)
arch=$(dpkg --print-architecture)
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

# Manual pages, completions and the configuration come from the programs' own tables.
pages=$work/pages
(cd cmd && go run ./pages -machnetd ../bin/machnetd -machnet ../bin/machnet -date "$date" "$pages")

put() { install -D -m "$1" "$2" "$3"; }
strip_to() { strip --strip-unneeded --remove-section=.comment --remove-section=.note -o "$work/stripped" "$1"; put "$2" "$work/stripped" "$3"; }

tree=$work/machnet
strip_to bin/machnetd 755 "$tree/usr/bin/machnetd"
strip_to bin/machnet 755 "$tree/usr/bin/machnet"
put 644 container/systemd/machnetd.service "$tree/usr/lib/systemd/system/machnetd.service"
put 644 container/systemd/machnet.sysusers "$tree/usr/lib/sysusers.d/machnet.conf"
put 644 container/systemd/60-machnet.rules "$tree/usr/lib/udev/rules.d/60-machnet.rules"
for dropin in container/systemd/nic/*.conf; do put 644 "$dropin" "$tree/usr/share/machnet/systemd/$(basename "$dropin")"; done
put 644 "$pages/machnetd.toml" "$tree/etc/machnet/machnetd.toml"
for page in "$pages"/man/*; do
    put 644 "$page" "$tree/usr/share/man/man${page##*.}/$(basename "$page")"
done
find "$tree/usr/share/man" -type f -exec gzip -9n {} +
put 644 "$pages/bash/machnet" "$tree/usr/share/bash-completion/completions/machnet"
put 644 "$pages/bash/machnetd" "$tree/usr/share/bash-completion/completions/machnetd"
put 644 "$pages/zsh/_machnet" "$tree/usr/share/zsh/vendor-completions/_machnet"
put 644 "$pages/zsh/_machnetd" "$tree/usr/share/zsh/vendor-completions/_machnetd"
put 644 "$pages/fish/machnet.fish" "$tree/usr/share/fish/vendor_completions.d/machnet.fish"
put 644 "$pages/fish/machnetd.fish" "$tree/usr/share/fish/vendor_completions.d/machnetd.fish"

tree=$work/libmachnet$abi
strip_to "bin/libmachnet.so.$abi" 644 "$tree/usr/lib/$multiarch/libmachnet.so.$abi"

tree=$work/libmachnet-dev
put 644 rust/machnet/include/machnet.h "$tree/usr/include/machnet.h"
put 644 "$archive" "$tree/usr/lib/$multiarch/libmachnet.a"
ln -s "libmachnet.so.$abi" "$tree/usr/lib/$multiarch/libmachnet.so"
install -d "$tree/usr/lib/$multiarch/pkgconfig"
sed -e 's|@PREFIX@|/usr|' -e "s|@VERSION@|$version|" -e "s|^libdir=.*|libdir=/usr/lib/$multiarch|" scripts/machnet.pc.in \
    >"$tree/usr/lib/$multiarch/pkgconfig/machnet.pc"

# What dpkg-shlibdeps and dpkg-gencontrol read.
mkdir -p "$work/debian"
sed "s/@ABI@/$abi/g" container/debian/control >"$work/debian/control"
printf 'machnet (%s) unstable; urgency=medium\n\n  * What changed: CHANGELOG.md of the sources.\n\n -- The Machnet authors <machnet@users.noreply.github.com>  %s\n' \
    "$version" "$(date -u -d "@$SOURCE_DATE_EPOCH" -R)" >"$work/debian/changelog"

# DPDK's drivers are plugins, which no program is linked with: those that a sidecar without a NIC needs, and those of the clouds.
plugins=$(dirname "$(find /usr/lib -name 'librte_net_memif.so' -path '*dpdk/pmds*' | head -n 1)")
packages_of() {
    local names=()
    for driver in "$@"; do
        # One that this Debian does not have, as mana before 13, is no dependency.
        [ ! -e "$plugins/librte_net_$driver.so" ] || names+=("$(dpkg-query -S "$(realpath "$plugins/librte_net_$driver.so")" | cut -d: -f1)")
    done
    local list
    printf -v list '%s, ' "${names[@]}"
    echo "${list%, }"
}
drivers=("-Vdrivers:Depends=$(packages_of memif af_packet)" "-Vdrivers:Recommends=$(packages_of ena gve mana netvsc vdev_netvsc mlx4 mlx5 failsafe virtio vmxnet3)")

for package in machnet "libmachnet$abi" libmachnet-dev; do
    tree=$work/$package
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/doc/$package"
    sed -e '/@LICENSE@/{r LICENSE' -e 'd}' container/debian/copyright | sed -e '/^MIT License$/,$ { /^MIT License$/d; s/^$/./; s/^/ / }' |
        sed -e '/^ Copyright (c)/d' >"$tree/usr/share/doc/$package/copyright"
    gzip -9nc "$work/debian/changelog" >"$tree/usr/share/doc/$package/changelog.gz"
    for script in postinst prerm postrm; do
        [ ! -e "container/debian/$package.$script" ] || put 755 "container/debian/$package.$script" "$tree/DEBIAN/$script"
    done
    case $package in
        machnet) echo /etc/machnet/machnetd.toml >"$tree/DEBIAN/conffiles" ;;
        libmachnet[0-9]*)
            echo "activate-noawait ldconfig" >"$tree/DEBIAN/triggers"
            echo "libmachnet $abi libmachnet$abi (>= $version)" >"$tree/DEBIAN/shlibs" ;;
    esac
    programs=$(find "$tree/usr/bin" "$tree/usr/lib" -type f \( -name 'machnet*' -o -name '*.so.*' \) -perm /111 -o -type f -name '*.so.*' 2>/dev/null || true)
    : >"$work/debian/substvars"
    # shellcheck disable=SC2086 # names of our own, without spaces
    [ -z "$programs" ] || (cd "$work" && dpkg-shlibdeps -Tdebian/substvars $programs)
    (cd "$work" && dpkg-gencontrol -p"$package" -P"$package" -Tdebian/substvars "${drivers[@]}" -n"${package}_${version}_$arch.deb" -fdebian/files)
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    mkdir -p "$out"
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/${package}_${version}_$arch.deb" >/dev/null
    echo "$out/${package}_${version}_$arch.deb"
done
