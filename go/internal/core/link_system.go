//go:build linux && (amd64 || arm64) && cgo && machnet_system

package core

// The library that `make install` or a distribution has put on this machine, as pkg-config says.

// #cgo pkg-config: machnet
import "C"
