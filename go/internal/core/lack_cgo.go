//go:build linux && (amd64 || arm64) && !cgo

package core

// Lack is what this build lacks to reach a sidecar, as the end of a sentence. Without a C compiler Go builds so by itself.
const Lack = "; this program was built without cgo: install a C compiler such as gcc, and build with CGO_ENABLED=1"
