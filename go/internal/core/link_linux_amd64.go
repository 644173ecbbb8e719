//go:build linux && amd64 && cgo && !machnet_system && !machnet_source

package core

import _ "github.com/machnet/machnet/go/internal/core/lib/linux_amd64" // the archive; a package, so that vendoring keeps it
