module github.com/machnet/machnet/cmd

go 1.26.0

require github.com/HdrHistogram/hdrhistogram-go v1.4.0

require (
	github.com/machnet/machnet v0.1.0
	github.com/vishvananda/netlink v1.3.1
	golang.org/x/sys v0.49.0
)

require (
	github.com/BurntSushi/toml v1.6.0 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
)

replace github.com/machnet/machnet => ../
