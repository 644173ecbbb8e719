//go:build linux && arm64 && cgo

package machnettest

import _ "github.com/machnet/machnet/go/machnettest/lib/linux_arm64"
