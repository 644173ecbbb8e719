#!/usr/bin/env bash
# DPDK 24.11.8 (Debian 13) takes a virtual device's description (devargs) of any length on the command line (--vdev), and one of at most
# 127 bytes from rte_dev_probe(), by which a running program attaches the very same device: from 128 bytes on it returns -E2BIG, since the
# request is also meant for secondary processes, in a message with so much room, whether or not there are any. Its line speaks of a
# truncation, though nothing was truncated but refused. Descriptions get there by paths: a memif socket may have 107 bytes, and what stands
# before it ("net_memif0,id=0,role=server,socket=") has 35.
# Seen:
#   24.11.8: --vdev of 140 bytes: 0; attach of 127 bytes: 0; attach of 128 bytes: -7
#   EAL: devargs truncated (len 128, max 128)
# 22.11.11 (Debian 12) attaches the longer one. So a program that attaches at run time counts the bytes before, or names its sockets by a short path.
set -euo pipefail
version=24.11.8-0+deb13u1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{lists,archives}/partial "$dir/root"
: > "$dir/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$dir/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$dir/lists"
    -o Dir::State::status="$dir/status" -o Dir::Cache="$dir" -o APT::Sandbox::User="$(id -un)")
apt-get "${options[@]}" update
apt-get "${options[@]}" install -y --download-only --no-install-recommends "librte-net-memif25=$version" "librte-mempool-ring25=$version"
for package in "$dir"/archives/*.deb; do dpkg -x "$package" "$dir/root"; done
lib=$dir/root/usr/lib/x86_64-linux-gnu
drivers=$(echo "$lib"/dpdk/pmds-*)

cat > "$dir/attach.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int rte_eal_init(int argc, char **argv);
int rte_dev_probe(const char *devargs);

/* A description of exactly `size` bytes, of a device of its own. */
static char *description(const char *folder, int device, int size) {
	char *text = malloc(size + 1);
	int used = snprintf(text, size + 1, "net_memif%d,id=%d,role=server,socket=%s/", device, device, folder);
	memset(text + used, 'x', size - used);
	text[size] = 0;
	return text;
}

int main(int argc, char **argv) {
	const char *folder = argv[1];
	char *args[] = {argv[0], "--no-huge", "-m", "64", "--no-pci", "--no-telemetry", "--no-shconf", "--log-level=error",
		"--vdev", description(folder, 0, 140), NULL};
	int begun = rte_eal_init(10, args);
	printf("--vdev of 140 bytes: %d; ", begun < 0 ? begun : 0);
	printf("attach of 127 bytes: %d; ", rte_dev_probe(description(folder, 1, 127)));
	printf("attach of 128 bytes: %d\n", rte_dev_probe(description(folder, 2, 128)));
	fflush(stdout);
	_Exit(0);
}
C
# The drivers register themselves when they are loaded; DPDK itself refuses to load them from below a folder that anybody may write to.
gcc -o "$dir/attach" "$dir/attach.c" -Wl,--no-as-needed,--allow-shlib-undefined "$lib/librte_eal.so.25" \
    "$drivers"/librte_{bus_vdev,mempool_ring,net_memif}.so.25
seen=$("$lib/ld-linux-x86-64.so.2" --library-path "$lib:$drivers" "$dir/attach" "$dir" 2>"$dir/log")
echo "24.11.8: $seen"
grep truncated "$dir/log"
test "$seen" = "--vdev of 140 bytes: 0; attach of 127 bytes: 0; attach of 128 bytes: -7"
