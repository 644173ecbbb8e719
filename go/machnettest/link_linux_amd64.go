//go:build linux && amd64 && cgo

package machnettest

import _ "github.com/machnet/machnet/go/machnettest/lib/linux_amd64"
