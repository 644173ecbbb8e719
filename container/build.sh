#!/bin/bash
# The steps of Containerfile, each for the platform TARGETARCH (amd64 or arm64), on whichever of the two the build runs: what is for another
# platform is cross-compiled, and nothing of it is run, so no emulator is needed.
set -euo pipefail

# The drivers of the image, as Debian's files are named: the NICs of AWS (ena, and ixgbe's virtual functions), of Google (gve, virtio, idpf), of
# Azure (mana, mlx5, mlx4, netvsc and what it stands on), of private clouds (virtio, vmxnet3, iavf), and the software ones.
net="af_packet ena failsafe gve iavf idpf ixgbe mana memif mlx4 mlx5 netvsc tap vdev_netvsc virtio vmxnet3"
others="bus_auxiliary bus_pci bus_vdev bus_vmbus mempool_ring"
# The kernel's RDMA interface, by which mana, mlx4 and mlx5 reach their NICs, loads these by name.
providers="mana mlx4 mlx5"

case ${TARGETARCH:?build.sh: TARGETARCH is not set; podman and docker set it} in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) echo "build.sh: TARGETARCH=$TARGETARCH: DPDK and Machnet are built for amd64 and arm64" >&2; exit 2 ;;
esac
native=$(dpkg --print-architecture)
triplet=$machine-linux-gnu
target=$machine-unknown-linux-gnu
libraries=/usr/lib/$triplet

# packages NAME...: Debian's, without what they only recommend; a name with :target is of the platform that is built for.
packages() {
    [ "$TARGETARCH" = "$native" ] || dpkg --add-architecture "$TARGETARCH"
    apt-get update -q
    # The two platforms' copies of a library must be of one version, which a base image of last month may have older.
    apt-get install -q -y --no-install-recommends "${@//:target/:$TARGETARCH}"
    rm -rf /var/lib/apt/lists/*
}

sidecar_packages() { packages binutils gcc libc6-dev "gcc-${triplet//_/-}" libclang-dev pkgconf libc6-dev:target libdpdk-dev:target; }

tools_packages() { packages libc6-dev gcc "gcc-${triplet//_/-}" libc6-dev:target; }

sidecar() {
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
        command -v rustup >/dev/null || { echo "build.sh: Rust here has no $target, and there is no rustup to add it; run on the host: rustup target add $target" >&2; exit 1; }
        rustup target add "$target"
    fi
    export PKG_CONFIG_LIBDIR=$libraries/pkgconfig:/usr/share/pkgconfig PKG_CONFIG_ALLOW_CROSS=1
    export BINDGEN_EXTRA_CLANG_ARGS="--target=$triplet"
    local name=${target^^}
    export "CARGO_TARGET_${name//-/_}_LINKER=$triplet-gcc" "CC_${target//-/_}=$triplet-gcc"
    cargo build --release --locked -p machnetd --target "$target"
    install -D "target/$target/release/machnetd" /out/machnetd
}

tools() {
    cd cmd
    CGO_ENABLED=1 GOOS=linux GOARCH=$TARGETARCH CC=$triplet-gcc go build -trimpath -ldflags=-s -o /out/machnet ./machnet
}

# image: the whole of the image's file system, in /image.
image() {
    local pmds name
    pmds=$(echo "$libraries"/dpdk/pmds-*)
    mkdir -p /image/usr/bin /image/usr/lib /image/usr/lib64 /image/etc /image/run/machnet /image/run/memif /image/tmp
    ln -s usr/bin /image/bin
    ln -s usr/lib /image/lib
    ln -s usr/lib64 /image/lib64
    mkdir /image/var
    ln -s ../run /image/var/run
    chmod 1777 /image/tmp
    # Who runs it unless told otherwise, and who owns the folders of its sockets, which new volumes take over.
    printf 'root:x:0:0:root:/:\nmachnet:x:65532:65532:Machnet:/:\n' >/image/etc/passwd
    printf 'root:x:0:\nmachnet:x:65532:\n' >/image/etc/group
    # By its group root may write there, too, where it lacks the capability to write everywhere.
    chown 65532:0 /image/run/machnet /image/run/memif
    chmod 0775 /image/run/machnet /image/run/memif

    install -s --strip-program="$triplet-strip" /out/machnetd /out/machnet /image/usr/bin/
    needs /out/machnetd
    needs /out/machnet
    for name in $net; do with "$pmds/librte_net_$name.so"*; done
    for name in $others; do with "$pmds/librte_$name.so"*; done
    for name in $providers; do
        # Debian links each provider's name to a library that programs may also link; only mana's, mlx4's and mlx5's come along.
        with "$libraries"/libibverbs/lib"$name"-rdmav*.so
        with /etc/libibverbs.d/"$name".driver
    done
}

# with FILE...: these files with what they need.
with() {
    local file
    for file in "$@"; do
        [ -e "$file" ] || { echo "build.sh: $file: Debian does not ship it here any more; mend the lists above" >&2; exit 1; }
        [ ! -e "/image$file" ] || continue
        copy "$file"
        case $file in *.so*) needs "$file" ;; esac
    done
}

# copy FILE: as it is, a link together with what it leads to, and the licence of the package that it is of.
copy() {
    local file=$1 place package
    mkdir -p "/image$(dirname "$file")"
    cp -a "$file" "/image$file"
    if [ -L "$file" ]; then
        place=$(realpath -s "$(dirname "$file")/$(readlink "$file")")
        [ -e "/image$place" ] || copy "$place"
        return
    fi
    # Files of merged /usr are known to dpkg by their older names, too.
    package=$(dpkg -S "$file" 2>/dev/null || dpkg -S "${file#/usr}")
    package=${package%%:*}
    mkdir -p "/image/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "/image/usr/share/doc/$package/"
}

# needs FILE: the libraries and the loader that a program or library names, and theirs in turn.
needs() {
    local library interpreter
    interpreter=$(readelf -l "$1" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
    if [ -n "$interpreter" ] && [ ! -e "/image$interpreter" ]; then copy "/usr$interpreter"; fi
    for library in $(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        [ ! -e "/image$libraries/$library" ] || continue
        with "$libraries/$library"
    done
}

"$@"
