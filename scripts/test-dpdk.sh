#!/usr/bin/env bash
# test-dpdk.sh SUITE: the sidecar with the DPDK of another Debian: bookworm (22.11), trixie (24.11), sid (what it carries).
#
# A root folder of that suite is made once, by debootstrap and apt, and kept in target/dpdk/SUITE. In it, with this machine's Rust and
# the source read-only, machnetd is built and the tests of the crates that touch DPDK run. The end-to-end tests run outside, first with
# that machnetd at both ends of their links, then with bin/machnetd, of this machine's DPDK, at one of them.
# Everything is mounted in a namespace of this process alone, so that the mounts end with it, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

# What of tests/e2e runs: every way of memif's to begin and to end a link, all engines' queues, and what is peculiar to af_packet.
e2e='TestConnectionsDoWhatTheyPromise|TestMessagesArriveOnceInOrderAndWhole|TestEnginesOfBothSidesFindEachOthersQueues|TestNetRPC
TestTheSidecarsDeathFailsEveryCallAtOnce|TestTheDeathOfThePeersSidecarEndsItsConnections|TestASidecarIsKilledUnderAHundred
TestWithoutItsSidecarAStackSaysSoAndWithTheNextItWorks|TestWhatWasSentArrivesHoweverItsSenderLeaves|TestCtlShowsChannels
TestJumboFramesCarryMessages|TestTwoEnginesShareADevice|TestFramesThatFindNoSlotAreCounted|TestAnIdleEngineSleepsUntilAFrameComes
TestTheKernelFindsAndPingsASidecar|TestADeviceThatTakesNoFrames|TestADeviceWhoseMTUIsRaised'

suite=${1:-}
fail() { echo "test-dpdk: $*" >&2; exit 1; }
case $suite in bookworm | trixie | sid) ;; *) fail "SUITE=$suite: say bookworm, trixie or sid" ;; esac
[ "$(id -u)" -eq 0 ] || fail "needs root, for a root folder of Debian $suite (debootstrap, mount, chroot); nothing was tested"
if [ "${MACHNET_OWN_MOUNTS:-}" != yes ]; then
    scripts/deps.sh debootstrap
    MACHNET_OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
fi
for program in bin/machnetd bin/machnet; do [ -x $program ] || fail "$program is missing: run make build first"; done

source=$PWD folder=$PWD/target/dpdk/$suite root=$PWD/target/dpdk/$suite/root
mkdir -p "$folder"/{target,cargo/registry}
log=$folder/log

# The packages, once. A folder that was left half made has no file `made`.
if [ ! -e "$folder/made" ]; then
    echo "test-dpdk: making a root folder of Debian $suite in target/dpdk/$suite (a few minutes, once)"
    rm -rf --one-file-system "$root"
    step() { DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1 </dev/null || { tail -n 5 "$log" >&2; fail "this ended with an error: $*"; }; }
    : >"$log"
    step debootstrap --variant=minbase --include=ca-certificates "$suite" "$root"
    install -m 644 /etc/resolv.conf /etc/hosts "$root/etc"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # so that no package starts anything
    chmod +x "$root/usr/sbin/policy-rc.d"
    step mount -t proc proc "$root/proc"
    step chroot "$root" apt-get install -y --no-install-recommends build-essential iproute2 libclang-dev libdpdk-dev pkg-config
    # Drivers that libdpdk-dev does not ask for, such as MANA's.
    step chroot "$root" sh -c "apt-get install -y --no-install-recommends \$(apt-cache search --names-only '^librte-net-' | cut -d ' ' -f 1)"
    step chroot "$root" apt-get clean
    step umount "$root/proc"
    : >"$folder/made"
fi

cargo fetch --locked --quiet # here, where the network is
place() { mkdir -p "$root$2"; mount --bind "$1" "$root$2"; }
show() { place "$1" "$2"; mount -o remount,bind,ro "$root$2"; }
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
place /tmp /tmp
show "$source" "$source"
show "$(rustc --print sysroot)" /rust
place "$folder/target" /target
place "$folder/cargo" /cargo
show "${CARGO_HOME:-$HOME/.cargo}/registry" /cargo/registry
inside() {
    chroot "$root" /usr/bin/env -i PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 CARGO_HOME=/cargo \
        CARGO_TARGET_DIR=/target CARGO_NET_OFFLINE=true sh -c "cd '$source' && $*"
}

echo "test-dpdk: building machnetd on Debian $suite"
inside "cargo build --locked --quiet -p machnetd" || fail "machnetd does not build on Debian $suite"
version_of() { "$@" --version | sed -n 's/.*\(DPDK [0-9][^ ,;)]*\).*/\1/p' | head -n 1; }
version=$(version_of inside /target/debug/machnetd)
here=$(version_of bin/machnetd)
[ -n "$version" ] && [ -n "$here" ] || fail "machnetd --version does not say which DPDK it runs with"

passed=0 failed=0
tally() { # what ran, tests that passed, tests that failed
    echo "test-dpdk: $1: $2/$(($2 + $3))"
    passed=$((passed + $2)) failed=$((failed + $3))
    [ $(($2 + $3)) -gt 0 ] || { tail -n 20 "$log" >&2; fail "$1: no test ran"; }
}

inside "cargo test --locked --no-fail-fast --lib --bins --tests -p dpdk-sys -p machnet-nic -p machnetd 2>&1" >"$log" || true
if grep -q '^error: could not compile' "$log"; then tail -n 20 "$log" >&2; fail "the tests do not build on Debian $suite"; fi
grep -E '^(test .* FAILED|---- |thread .* panicked)' "$log" >&2 || true
tally "crates with $version" $(awk '/^test result:/ { good += $4; bad += $6 } END { print good + 0, bad + 0 }' "$log")

# In the place of bin/machnetd, for this process and its children: which one is started follows from the host's address.
(cd tests && go test -c -o "$folder/e2e.test" ./e2e)
cp bin/machnetd "$folder/machnetd-here"
mount --bind /dev/null bin/machnetd
end_to_end() { # words that say what runs; addresses, as a shell pattern, that the machnetd of this machine serves
    cat >"$folder/machnetd" <<END
#!/bin/sh
case " \$* " in *" --ip "$2*) exec '$folder/machnetd-here' "\$@" ;; esac
exec chroot '$root' /target/debug/machnetd "\$@"
END
    chmod +x "$folder/machnetd"
    umount bin/machnetd
    mount --bind "$folder/machnetd" bin/machnetd
    (cd tests/e2e && "$folder/e2e.test" -test.v -test.timeout 20m -test.run "^($(tr '\n' '|' <<<"$e2e" | sed 's/|$//'))") >"$log" 2>&1 || true
    grep -A 20 -E '^ *--- FAIL' "$log" >&2 || true
    tally "$1" "$(grep -c '^--- PASS' "$log")" "$(grep -c -E '^--- FAIL|^panic: ' "$log")"
    grep -A 1 '^--- SKIP' "$log" || true
}
end_to_end "end to end, $version at both ends" 'none'
end_to_end "end to end, $version with $here at 10.0.0.1" '10.0.0.1/*'
end_to_end "end to end, $version with $here at 10.0.0.2" '10.0.0.2/*'

echo "test-dpdk: $passed/$((passed + failed)) ($version)"
[ "$failed" -eq 0 ]
