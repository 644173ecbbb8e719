// Package e2e tests the Go client over real sidecars that a memif link joins.
package e2e
