//go:build linux && amd64 && cgo && !machnet_source

package machnettest

import _ "github.com/machnet/machnet/go/machnettest/lib/linux_amd64"
