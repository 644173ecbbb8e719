// Package machine reads what the kernel says of this machine: its NICs, their drivers, addresses and routes, its huge pages and its
// IOMMU. It changes nothing. Interfaces, addresses and routes come by netlink, those of the calling thread's network namespace;
// everything else comes from /sys and /proc.
package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Root stands before /sys, /proc and /etc: "" is this machine, and in a test the folder that holds a tree made up for it.
type Root string

// Path is where a file of the machine is found, as /sys/class/net.
func (r Root) Path(path string) string {
	if r == "" {
		return path
	}
	return filepath.Join(string(r), path)
}

// text is what a file holds, without the space around it; "" where there is none.
func (r Root) text(path string) string {
	text, err := os.ReadFile(r.Path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// number is what a file holds, decimal or hexadecimal with 0x before it; otherwise, or where there is none, it is missing.
func (r Root) number(path string, missing int64) int64 {
	n, err := strconv.ParseInt(r.text(path), 0, 64)
	if err != nil {
		return missing
	}
	return n
}

// names are those of the entries of a folder that match a pattern, in order; none where there is no folder.
func (r Root) names(pattern string) []string {
	paths, err := filepath.Glob(r.Path(pattern))
	if err != nil {
		return nil
	}
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

// link is the last part of where a symbolic link leads; "" where there is none.
func (r Root) link(path string) string {
	to, err := os.Readlink(r.Path(path))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// exists says whether there is such a file or folder.
func (r Root) exists(path string) bool {
	_, err := os.Stat(r.Path(path))
	return err == nil
}
