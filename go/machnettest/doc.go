// Package machnettest runs whole Machnet hosts inside a test process, on a simulated network.
package machnettest
