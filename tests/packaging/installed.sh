#!/usr/bin/env bash
# Installs packages, uses and purges them on an overlay of this machine, in a mount namespace of its own (tests/packaging/debs.go).
#   installed.sh ROOT NAME NAME NAME DEB DEB DEB
set -euo pipefail
root=$1
names=("$2" "$3" "$4")
debs=("$5" "$6" "$7")

fail() { echo "$*"; exit 1; }
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mount -t proc none /mnt/root/proc
mount --rbind /dev /mnt/root/dev
mount --rbind /sys /mnt/root/sys
mount -t tmpfs none /mnt/root/run
mount -t tmpfs none /mnt/root/tmp
cp "${debs[@]}" "$root/tests/c/echo.c" /mnt/root/tmp/
in_root() { chroot /mnt/root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
# The index of all manual pages of the machine takes longer than all else here, and is not ours.
rm -f /mnt/root/var/lib/man-db/auto-update

users() { in_root getent passwd; in_root getent group; }
users >/mnt/before
in_root sh -c "dpkg --force-unsafe-io -i /tmp/*.deb" >/mnt/log 2>&1 || { cat /mnt/log; fail "dpkg -i"; }

in_root getent passwd machnet >/dev/null || fail "there is no user machnet"
for page in "1 machnet" "5 machnetd.toml" "8 machnetd"; do
    # shellcheck disable=SC2086 # two words
    in_root man -w $page >/dev/null || fail "no manual page $page"
done
in_root systemctl --root=/ is-enabled machnetd >/mnt/enabled || true
grep -qx disabled /mnt/enabled || fail "the unit is $(cat /mnt/enabled), want disabled"
in_root sh -c "systemctl --root=/ enable machnetd && systemctl --root=/ disable machnetd" 2>/mnt/said || fail "the unit cannot be enabled: $(cat /mnt/said)"
! in_root machnetd --check --config /etc/machnet/machnetd.toml 2>/mnt/said || fail "the file of comments is taken for settings"
grep -q "host.ip is not set" /mnt/said || fail "of the file of comments it says: $(cat /mnt/said)"

# A sidecar as the unit runs it: the package's user, without a capability.
mkdir -p /mnt/root/run/machnet
in_root chown machnet:machnet /run/machnet
printf '[host]\nip = "10.0.0.1/24"\n[nic]\nmemif = "server:/run/machnet/link"\n[engines]\nidle = "yield"\n' >/mnt/root/etc/machnet/machnetd.toml
# Not by a function, so that the number is that of the sidecar and not of a shell around it.
chroot /mnt/root /usr/bin/setpriv --reuid machnet --regid machnet --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
    /usr/bin/machnetd --config /etc/machnet/machnetd.toml >/mnt/sidecar 2>&1 &
sidecar=$!
trap 'kill $sidecar 2>/dev/null || true' EXIT
healthy=
for _ in $(seq 200); do
    in_root machnet ctl health >/mnt/health 2>&1 && healthy=yes && break
    sleep 0.1
done
[ -n "$healthy" ] || fail "the sidecar is not healthy: $(cat /mnt/health /mnt/sidecar)"
# shellcheck disable=SC2016 # for the shell in there
in_root bash -c 'cd /tmp && cc -std=c11 $(pkg-config --cflags machnet) echo.c $(pkg-config --libs machnet) -o echo' || fail "a C program cannot be linked"
in_root ldd /tmp/echo >/mnt/libraries
grep -q "libmachnet.so.* => /" /mnt/libraries || fail "the C program does not find its library: $(cat /mnt/libraries)"
kill "$sidecar"
wait "$sidecar" || fail "the sidecar ended with $?: $(cat /mnt/sidecar)"

in_root dpkg --purge "${names[2]}" "${names[1]}" "${names[0]}" >/mnt/log 2>&1 || { cat /mnt/log; fail "dpkg --purge"; }
[ ! -e /var/lib/man-db/auto-update ] || touch /mnt/root/var/lib/man-db/auto-update
users >/mnt/after
diff /mnt/before /mnt/after || fail "users are left, or gone"
# What the upper layer has and this machine has not is left; a device 0/0 there stands for what was removed.
(cd /mnt/upper && find . -mindepth 1 \( -path ./var/lib/dpkg -o -path ./var/cache -o -path ./var/log \) -prune -o -print) | while read -r name; do
    if [ -c "/mnt/upper/$name" ]; then
        [ -e "/$name" ] && echo "gone: $name"
    elif [ ! -e "/$name" ] && [ ! -L "/$name" ]; then
        echo "left: $name"
    fi
done >/mnt/left
[ ! -s /mnt/left ] || fail "$(cat /mnt/left)"
echo "nothing is left"
