// Package vm boots guests in QEMU and drives them: virtual machines with the vNICs that DPDK's drivers are for, and in them machnetd, machnet and
// those drivers as this machine has them. Its own tests are what `make test-vm` runs (docs/vm.md); other tests may Start guests as well.
//
// The CPU is emulated (TCG), so that guests run wherever QEMU does, without /dev/kvm. What they do is right or wrong as on hardware; how long
// it takes says nothing.
package vm
