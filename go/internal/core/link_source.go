//go:build linux && (amd64 || arm64) && cgo && machnet_source && !machnet_system

package core

// What Cargo left in the clone, with its line tables, instead of the archive that git keeps (docs/packaging.md).

// #cgo amd64 LDFLAGS: ${SRCDIR}/../../../target/x86_64-unknown-linux-gnu/archive/libmachnet_client.a -lm -ldl -lpthread
// #cgo arm64 LDFLAGS: ${SRCDIR}/../../../target/aarch64-unknown-linux-gnu/archive/libmachnet_client.a -lm -ldl -lpthread
import "C"
