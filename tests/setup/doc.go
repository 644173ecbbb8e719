// Package setup tries `machnet setup` on machines that it may change: network namespaces, and a virtual machine with a real NIC of virtio's. What
// it changes is compared with what was there before, all of it: addresses, routes, rules, neighbours, links, settings of the kernel, drivers, huge
// pages and files.
package setup
