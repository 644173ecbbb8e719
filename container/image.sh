#!/usr/bin/env bash
# Builds the image: container/image.sh NAME, with podman, or docker where there is no podman.
#
#   PLATFORM=linux/arm64   for that platform instead of this machine's
#   BASES=local            needs no registry: the stages that build run on a Debian 13 made by debootstrap (as root), with this machine's Rust and Go
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "container: $*" >&2; exit 1; }

name=${1:?image.sh: say the name of the image, like localhost/machnet}
tool=$(command -v podman || command -v docker) || fail "neither podman nor docker is on this machine; install one (Debian: apt-get install podman)"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
options=(--file container/Containerfile --tag "$name" --build-arg "VERSION=$version" --build-arg "REVISION=$revision")
# podman before 5 does not say by itself on what it builds, and would take bases of the platform that it builds for.
case $(uname -m) in aarch64) options+=(--build-arg BUILDPLATFORM=linux/arm64) ;; *) options+=(--build-arg BUILDPLATFORM=linux/amd64) ;; esac
[ -z "${PLATFORM:-}" ] || options+=(--platform "$PLATFORM")
# Only this format has a place for the health check; docker knows no other.
[[ $tool != */podman ]] || options+=(--format docker)

case ${BASES:-registry} in
    registry) ;;
    local)
        base=localhost/machnet-debian:trixie
        [[ $tool == */podman ]] || fail "BASES=local mounts Rust and Go into the build, which only podman can; install podman"
        "$tool" image exists "$base" || {
            [ "$(id -u)" -eq 0 ] || fail "BASES=local makes a Debian by debootstrap, which needs root; run it as root, or take the bases from a registry (without BASES)"
            command -v debootstrap >/dev/null || fail "BASES=local needs debootstrap; run: apt-get install debootstrap"
            folder=$(mktemp -d)
            trap 'rm -rf "$folder"' EXIT
            echo "container: a Debian 13 by debootstrap"
            debootstrap --variant=minbase trixie "$folder/root" >"$folder/log" || { tail -n 20 "$folder/log" >&2; fail "debootstrap failed; its last words stand above"; }
            tar -C "$folder/root" -c . | "$tool" import --change 'ENV PATH=/opt/rust/bin:/opt/go/bin:/usr/sbin:/usr/bin' \
                --change 'ENV SSL_CERT_FILE=/opt/certificates.pem' - "$base" >/dev/null
        }
        # The certificates, too: a proxy that this machine trusts is trusted in the build.
        options+=(--build-arg "RUST_IMAGE=$base" --build-arg "GO_IMAGE=$base" --volume "$(rustc --print sysroot):/opt/rust:ro"
            --volume "$(go env GOROOT):/opt/go:ro" --volume /etc/ssl/certs/ca-certificates.crt:/opt/certificates.pem:ro)
        ;;
    *) fail "BASES=$BASES: say registry or local" ;;
esac
"$tool" build "${options[@]}" .
echo "container: $name, $(( $("$tool" image inspect --format '{{.Size}}' "$name") / 1000000 )) MB"
