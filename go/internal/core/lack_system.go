//go:build !linux || !(amd64 || arm64)

package core

import "runtime"

// Lack is what this build lacks to reach a sidecar, as the end of a sentence.
const Lack = "; this program was built for " + runtime.GOOS + "/" + runtime.GOARCH
