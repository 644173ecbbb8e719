//go:build linux && arm64 && cgo && !machnet_source

package machnettest

import _ "github.com/machnet/machnet/go/machnettest/lib/linux_arm64"
