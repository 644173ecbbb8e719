#!/usr/bin/env bash
# Installs the package on an overlay of this machine in which a systemd of its own runs, in namespaces, and has it run the unit: what the unit is granted,
# and what becomes of it (tests/packaging/unit.go). Ends with "skipped: WHY" where no systemd can be started so.
#   systemd.sh DEB
set -euo pipefail
deb=$(realpath -e "$1")
work=$(mktemp -d)
fail() { echo "$*"; exit 1; }

# A group of processes in each of the hierarchies that systemd looks for: the unified one, or the older ones of units and devices.
hierarchies=()
while read -r _ place type options _; do
    case $type:$options in
        cgroup2:*) hierarchies+=("$place cgroup2 rw") ;;
        cgroup:*name=systemd*) hierarchies+=("$place cgroup none,name=systemd") ;;
        cgroup:*devices*) hierarchies+=("$place cgroup devices") ;;
    esac
done </proc/mounts
groups=()
for hierarchy in "${hierarchies[@]}"; do groups+=("${hierarchy%% *}/machnet-unit-$$"); done
systemd=""
first=""
clean() {
    [ -z "$first" ] || kill -KILL "$first" 2>/dev/null || true
    [ -z "$systemd" ] || { kill -KILL "$systemd" 2>/dev/null || true; wait "$systemd" 2>/dev/null || true; }
    for group in "${groups[@]}"; do
        # A process that was killed may be counted for a moment.
        for _ in $(seq 50); do [ -d "$group" ] || break; find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true; sleep 0.1; done
    done
    rm -rf "$work"
}
trap clean EXIT
if [ "${#groups[@]}" -eq 0 ] || ! mkdir "${groups[@]}" 2>"$work/said"; then
    echo "skipped: this machine has no control groups for a systemd"
    exit 0
fi

cat >"$work/boot" <<'BOOT'
set -euo pipefail
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t proc none proc
mount -t sysfs none sys
mount -t tmpfs none sys/fs/cgroup
for hierarchy in "${@:2}"; do
    read -r place type options <<<"$hierarchy"
    mkdir -p ".$place"
    mount -t "$type" -o "$options" none ".$place"
done
mount -t tmpfs none run
mount -t tmpfs none dev
cp -a /dev/{null,zero,full,random,urandom,tty} dev/
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 none dev/pts
ln -s pts/ptmx dev/ptmx
cp "$1" root/machnet.deb
mkdir -p etc/systemd/system
printf '[Unit]\nDescription=Nothing but what is asked for\n' >etc/systemd/system/bare.target
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
exec env -i container=machnet PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --unit=bare.target --log-target=console
BOOT
(
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    # Whoever kills this script kills all of it.
    exec setpriv --pdeathsig KILL unshare --mount --net --ipc --uts --cgroup --pid --fork --kill-child bash "$work/boot" "$deb" "${hierarchies[@]}"
) >"$work/console" 2>&1 </dev/null &
systemd=$!
within() { nsenter --target "$first" --mount --net --ipc --uts --cgroup --pid --root --wd env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
# until WHAT COMMAND...: waits until the command succeeds.
until_() { local what=$1; shift; for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "not in 30 s: $what: $(within systemctl --no-pager status machnetd 2>&1 | tail -n 5)"; }
up() { first=$(pgrep -P "$systemd") && within systemctl is-system-running --quiet 2>/dev/null; }
for _ in $(seq 300); do up && break; kill -0 "$systemd" 2>/dev/null || break; sleep 0.1; done
up || { echo "skipped: no systemd starts in namespaces here: $(tail -n 1 "$work/console")"; exit 0; }

property() { within systemctl show machnetd -p "$1" --value; }
settings() { printf '[host]\nip = "10.0.0.1/24"\n[nic]\n%s\n[engines]\nidle = "yield"\n' "$1" | within tee /etc/machnet/machnetd.toml >/dev/null; }
# dropin FILE...: with these of the package's drop-ins, and less patience than a user has.
dropin() {
    within rm -rf /etc/systemd/system/machnetd.service.d
    within mkdir -p /etc/systemd/system/machnetd.service.d
    [ $# -eq 0 ] || within cp "${@/#//usr/share/machnet/systemd/}" /etc/systemd/system/machnetd.service.d/
    printf '[Service]\nRestartSec=100ms\nWatchdogSec=2\n' | within tee /etc/systemd/system/machnetd.service.d/zz-test.conf >/dev/null
    within systemctl daemon-reload
}
starts() { within systemctl restart machnetd || fail "$1: $(within systemctl --no-pager status machnetd | tail -n 5)"; within machnet ctl health >/dev/null || fail "$1: not healthy"; }
install() { within dpkg --force-unsafe-io -i /root/machnet.deb >"$work/said" 2>&1 || fail "dpkg -i: $(cat "$work/said")"; }

within rm -f /var/lib/man-db/auto-update /usr/sbin/policy-rc.d
install
! within systemctl is-active --quiet machnetd || fail "installing it has started it"
for kind in vfio vfio-noiommu rdma netvsc; do
    dropin $kind.conf
    settings 'memif = "server:/run/machnet/link"'
    starts "memif with what $kind.conf grants"
done
for nic in 'af_packet vdev = "net_af_packet0,iface=v0"' 'xdp xdp = "v0"'; do
    settings "${nic#* }"
    dropin
    ! within systemctl restart machnetd 2>/dev/null || fail "${nic%% *} is not in need of its drop-in"
    [ "$(property ExecMainStatus)" = 3 ] || fail "${nic%% *} without its drop-in ends with $(property ExecMainStatus)"
    dropin "${nic%% *}.conf"
    starts "${nic%% *}.conf"
done

dropin
settings 'memif = "server:/run/machnet/link"'
starts "memif"
within systemctl reload machnetd || fail "systemctl reload"
within setpriv --reuid 65534 --regid 65534 --groups "$(within getent group machnet | cut -d: -f3)" machnet ctl health >/dev/null || fail "a member of the group machnet may not attach"
! within setpriv --reuid 65534 --regid 65534 --clear-groups machnet ctl health >/dev/null 2>&1 || fail "somebody else may attach"

# A container has the folder mounted, whatever happens to the sidecar.
within mkdir /srv/container
within mount --bind /run/machnet /srv/container
there() { within machnet ctl health --socket /srv/container/machnet.sock; }
within systemctl restart machnetd
until_ "a folder that is mounted has the socket of a sidecar started again" there
within systemctl stop machnetd
within systemctl start machnetd
until_ "a folder that is mounted has the socket of a sidecar stopped and started" there
within umount /srv/container

# One that fails, or stands still, is started again; one whose settings are wrong is not.
tried() { [ "$(property NRestarts)" -ge "$1" ]; }
again() { tried "$1" && within machnet ctl health; }
within systemctl kill --signal KILL machnetd
until_ "a sidecar that was killed is started again" again 1
within systemctl kill --signal STOP machnetd
until_ "a sidecar that stands still is started again" again 2
settings 'memif = "nobody:/run/machnet/link"'
! within systemctl restart machnetd 2>/dev/null || fail "it has started with wrong settings"
[ "$(property SubState)" = failed ] || fail "with wrong settings it is started again and again"

# A NIC may come late, long after systemd would have given up by itself.
dropin af_packet.conf
settings 'vdev = "net_af_packet0,iface=late0"'
within systemctl start machnetd 2>/dev/null && fail "it has started without its NIC"
until_ "it is tried again and again" tried 8
install # does not depend on whether it can start
within sh -c "ip link add late0 type veth peer name late1 && ip link set late0 up && ip link set late1 up"
until_ "it starts once its NIC is there" within machnet ctl health

# An upgrade has a running sidecar go on in its new version; who purges the package has nothing of it any more.
before=$(property MainPID)
install
until_ "it runs after an upgrade" within machnet ctl health
[ "$(property MainPID)" != "$before" ] || fail "an upgrade leaves the old one running"
within systemctl enable machnetd 2>/dev/null
within dpkg --purge machnet >"$work/said" 2>&1 || fail "dpkg --purge: $(cat "$work/said")"
! within pgrep -x machnetd || fail "it runs after a purge"
! within sh -c "[ -e /run/machnet ] || [ -L /etc/systemd/system/multi-user.target.wants/machnetd.service ]" || fail "a purge leaves /run/machnet, or the unit enabled"
echo "it does"
