//go:build linux && arm64 && cgo

package core

import _ "github.com/machnet/machnet/go/internal/core/lib/linux_arm64" // the archive; a package, so that vendoring keeps it
