#!/usr/bin/env bash
# kcp-go v5.7.5, a reliable transport over UDP whose sessions are net.Conns: a message that Write took is lost without an error if Close
# follows at once, on a link that loses nothing. Write only queues; Close has the protocol make its packets, and then drops what was made
# and not yet handed to the socket. Both return nil. The other end does not even learn that there was a session, since the first
# packet is what makes one. With a pause before Close all is there.
# Seen, 20 sessions over loopback with a message of 1000 bytes each, both ends in one process:
#   closed at once: every Write and Close nil, messages lost true
#   closed 200 ms later: every Write and Close nil, messages lost false
# So what is asked and answered over such a session needs an answer before Close; a Close that waits for acknowledgements, as TCP's does
# in the kernel, is what programs made for net.Conn count on.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
mkdir "$dir/program"
cd "$dir/program"
export GOWORK=off GOFLAGS=-mod=mod GOMODCACHE=$dir/modules
cat > go.mod <<'MOD'
module finding
go 1.25.0
require github.com/xtaci/kcp-go/v5 v5.7.5
MOD
cat > main.go <<'GO'
package main

import (
	"fmt"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

const sessions, size = 20, 1000

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// arrived has sessions write one message each and close after a pause; it returns how many of the messages came.
func arrived(pause time.Duration) int {
	listener, err := kcp.ListenWithOptions("127.0.0.1:0", nil, 0, 0)
	must(err)
	defer listener.Close()
	for range sessions {
		session, err := kcp.DialWithOptions(listener.Addr().String(), nil, 0, 0)
		must(err)
		_, err = session.Write(make([]byte, size))
		must(err)
		time.Sleep(pause)
		must(session.Close())
	}
	came := 0
	must(listener.SetDeadline(time.Now().Add(3 * time.Second)))
	for {
		session, err := listener.AcceptKCP()
		if err != nil {
			return came
		}
		must(session.SetReadDeadline(time.Now().Add(3 * time.Second)))
		if n, _ := session.Read(make([]byte, 2*size)); n == size {
			came++
		}
	}
}

func main() {
	fmt.Printf("closed at once: every Write and Close nil, messages lost %v\n", arrived(0) < sessions)
	fmt.Printf("closed 200 ms later: every Write and Close nil, messages lost %v\n", arrived(200*time.Millisecond) < sessions)
}
GO
go mod tidy 2> tidy.log || { cat tidy.log; exit 1; }
go build -o finding .
timeout 120 ./finding | tee seen
diff seen - <<'SEEN' && echo "as described"
closed at once: every Write and Close nil, messages lost true
closed 200 ms later: every Write and Close nil, messages lost false
SEEN
