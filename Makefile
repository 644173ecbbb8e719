# Every command of the project. `make help` lists them; CI calls nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

APT_PACKAGES := build-essential ethtool iproute2 libclang-dev libdpdk-dev nftables pkg-config python3
BIN := $(CURDIR)/bin
LOG := target/test-log
GO_MODULES := . cmd tests go/examples go/machnettest
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOARCH := $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
# One C archive per platform, made from the Rust client; the Go packages link it.
CLIENT_ARCHIVE := go/internal/core/lib/linux_$(GOARCH)/libmachnet.a
CORE_ARCHIVE := go/machnettest/lib/linux_$(GOARCH)/libmachnetcore.a
# The shared library is the same object; its name changes with MACHNET_ABI, and so does the version of its symbols.
ABI := $(shell sed -n 's/^\#define MACHNET_ABI //p' rust/machnet/include/machnet.h)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
PREFIX ?= /usr/local
DESTDIR ?=
# Times per test: libtest prints them only with an unstable option; the variable goes to the test programs alone,
# so nothing is compiled differently.
CARGO_TEST := cargo test --locked --config 'target."cfg(all())".runner=["env","RUSTC_BOOTSTRAP=1"]'
REPORT_TIME := -Zunstable-options --report-time

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: deps
deps: ## install what is missing (apt); names what it cannot install
	@scripts/deps.sh $(APT_PACKAGES)

.PHONY: build
build: deps ## bin/machnetd, bin/machnet, bin/machnet-sim, both static archives and the shared library
	cargo build --release --locked
	scripts/archives.sh
	mkdir -p $(BIN)
	install -m 755 target/release/machnetd target/release/machnet-sim $(BIN)
	rm -f $(BIN)/machnet # Go takes what is there for new though the archive that it links is another
	cd cmd && go build -o $(BIN)/machnet ./machnet
	$(CC) -std=c11 -O2 -Wall -Wextra -Werror -I rust/machnet/include tests/c/echo.c $(CLIENT_ARCHIVE) -o $(BIN)/machnet-echo-c -lpthread
	$(CC) -std=c11 -O2 -Wall -Wextra -Werror -I rust/machnet/include tests/c/load.c $(CLIENT_ARCHIVE) -o $(BIN)/machnet-load-c -lpthread
	$(CC) -shared -Wl,-soname,libmachnet.so.$(ABI) -Wl,--version-script=scripts/libmachnet.map -Wl,-z,defs \
	    -Wl,--whole-archive $(CLIENT_ARCHIVE) -Wl,--no-whole-archive -lpthread -o $(BIN)/libmachnet.so.$(ABI)

.PHONY: install
install: ## what `make build` made, to PREFIX=/usr/local, below DESTDIR if set; then run ldconfig
	@for file in machnetd machnet libmachnet.so.$(ABI); do \
	    test -e $(BIN)/$$file || { echo "make install: bin/$$file is not there; run make build first"; exit 1; }; done
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 755 $(BIN)/machnetd $(BIN)/machnet $(DESTDIR)$(PREFIX)/bin
	install -m 644 rust/machnet/include/machnet.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(CLIENT_ARCHIVE) $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BIN)/libmachnet.so.$(ABI) $(DESTDIR)$(PREFIX)/lib
	ln -sf libmachnet.so.$(ABI) $(DESTDIR)$(PREFIX)/lib/libmachnet.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' scripts/machnet.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/machnet.pc

.PHONY: uninstall
uninstall: ## take that back, with the same PREFIX and DESTDIR
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/machnetd bin/machnet include/machnet.h lib/libmachnet.a lib/libmachnet.so.$(ABI) \
	    lib/libmachnet.so lib/pkgconfig/machnet.pc)

.PHONY: demo
demo: build ## two sidecars, a Go echo between them, beside kernel TCP
	$(BIN)/machnet demo

.PHONY: test
test: build test-rust test-loom test-c test-go test-go-others test-e2e test-setup test-vm-virtio test-doctor test-goget test-packaging test-archives slowest ## everything that CI runs

.PHONY: test-rust
test-rust: | $(LOG)
	$(CARGO_TEST) --lib --bins --tests -- $(REPORT_TIME) 2>&1 | tee $(LOG)/rust.log
	cargo test --locked --doc --quiet

SEEDS ?= 1
.PHONY: sim
sim: ## every fault with every other in full, with SEEDS=n seeds, and n times 100 000 random operation sequences
	MACHNET_SEEDS=$(SEEDS) cargo test --locked -p machnet-engine --test matrix -- --nocapture
	MACHNET_SEEDS=$$(( $(SEEDS) * 100000 )) cargo test --locked -p machnet-flow --test ops -- --nocapture

.PHONY: rss-proof
CONTACTS := 10000
rss-proof: ## CONTACTS=10000 first contacts for each number of engines against RSS--'s formula, and what faults cost (docs/rss.md)
	MACHNET_CONTACTS=$(CONTACTS) cargo test --locked -p machnet-engine --test rss_proof --test rss_proof_pool --test rss_proof_faults -- --nocapture --test-threads 1

.PHONY: test-loom
test-loom: | $(LOG) ## every interleaving of the rings and of the sleep protocol, within loom's bounds
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO_TEST) -p machnet-shm --profile loom --test loom_ring -- $(REPORT_TIME) 2>&1 | tee $(LOG)/loom.log

.PHONY: model
model: ## every state of two connections within small bounds (docs/wire.md, "What is proven"); DEPTH=1 widens them, ONLY=name picks one
	cargo run --locked --profile model -p machnet-model -- --more $(or $(DEPTH),0) $(ONLY)

.PHONY: test-c
test-c: ## the headers from C and C++, both archives in one program, signals, fork and cancelled threads
	mkdir -p target/c
	for lang in "$(CC) -std=c11 -pedantic" "$(CXX) -x c++"; do for file in echo load hosts leaving process duplex orphan; do \
	    $$lang -Wall -Wextra -Werror -I rust/machnet/include -I rust/machnet-core/include -c tests/c/$$file.c -o target/c/$$file.o; done; done
	for file in hosts process; do \
	    $(CC) -std=c11 -O2 -I rust/machnet/include -I rust/machnet-core/include tests/c/$$file.c $(CLIENT_ARCHIVE) $(CORE_ARCHIVE) -o target/c/$$file -lpthread -lm -ldl; \
	    timeout 60 target/c/$$file || { echo "test-c: $$file ended with status $$?"; exit 1; }; done

.PHONY: test-go
test-go: | $(LOG) ## Go unit tests and the whole stack in one process
	go test -count=1 -race -json ./go/... > $(LOG)/go.json || { scripts/go-failures.sh $(LOG)/go.json; exit 1; }
	CGO_ENABLED=0 go test -count=1 -json ./go/fallback > $(LOG)/nocgo.json || { scripts/go-failures.sh $(LOG)/nocgo.json; exit 1; }
	cd go/machnettest && go test -count=1 -race -json ./... > ../../$(LOG)/gotest.json || { ../../scripts/go-failures.sh ../../$(LOG)/gotest.json; exit 1; }
	cd go/machnettest && MACHNET_CONNECTIONS=10000 go test -count=1 -run 'NoGarbage|BoundedByMemoryAlone' -json . > ../../$(LOG)/norace.json || { ../../scripts/go-failures.sh ../../$(LOG)/norace.json; exit 1; }
	cd go/examples && go test -count=1 -race -timeout 5m -json ./... > ../../$(LOG)/examples.json || { ../../scripts/go-failures.sh ../../$(LOG)/examples.json; exit 1; }
	cd cmd && go test -count=1 -race -json ./... > ../$(LOG)/cmd.json || { ../scripts/go-failures.sh ../$(LOG)/cmd.json; exit 1; }
	@scripts/go-summary.sh $(LOG)/go.json $(LOG)/nocgo.json $(LOG)/gotest.json $(LOG)/norace.json $(LOG)/examples.json $(LOG)/cmd.json

# The oldest Go that go.mod allows, and those newer than the one that CI has.
GO_OLDEST = $(shell sed -n 's/^go //p' go.mod)
GO_OTHERS := go1.27.4
.PHONY: test-go-others
test-go-others: | $(LOG) ## the Go packages with other Go toolchains, where they can be had: the oldest compiles them, GO_OTHERS test them
	@for go in go$(GO_OLDEST) $(GO_OTHERS); do \
	    export GOTOOLCHAIN=$$go GOWORK=off; \
	    GOTOOLCHAIN=$$go go version >/dev/null 2>&1 || { echo "test-go-others: $$go is not to be had here: not tried"; continue; }; \
	    action="test -count=1"; [ $$go != go$(GO_OLDEST) ] || action=vet; \
	    for m in . go/machnettest; do (cd $$m && go $$action ./... >$(CURDIR)/$(LOG)/go-others.log 2>&1) || \
	        { cat $(LOG)/go-others.log; echo "test-go-others: go $$action in $$m failed with $$go"; exit 1; }; done; \
	    echo "test-go-others: $$go, go $$action: ok"; done

# What depends most on the link: connections as net.Conn has them, messages, HTTP, and what outlives a sidecar.
E2E_CORE := ^Test(Connections|Messages|HTTP|AnHTTPServer|WhatWasSent|AConnection)
.PHONY: test-e2e
test-e2e: | $(LOG) ## real sidecars over memif, once more over veth between network namespaces, the core of it by AF_XDP (skipped unless root)
	@scripts/deps.sh tshark || echo "test-e2e: without tshark docs/machnet.lua is not tested"
	cd tests && go test -count=1 -race -timeout 30m -p 1 -json ./... > ../$(LOG)/e2e.json || { ../scripts/go-failures.sh ../$(LOG)/e2e.json; exit 1; }
	cd tests && go test -count=1 -race -timeout 30m -json ./e2e -link veth > ../$(LOG)/e2e-veth.json || { ../scripts/go-failures.sh ../$(LOG)/e2e-veth.json; exit 1; }
	cd tests && go test -count=1 -race -timeout 30m -json ./e2e -link xdp -run '$(E2E_CORE)' > ../$(LOG)/e2e-xdp.json || { ../scripts/go-failures.sh ../$(LOG)/e2e-xdp.json; exit 1; }
	@scripts/go-summary.sh $(LOG)/e2e.json $(LOG)/e2e-veth.json $(LOG)/e2e-xdp.json

MODELS := all
SUITE := trixie
.PHONY: test-dpdk
test-dpdk: ## the sidecar with the DPDK of another Debian, SUITE=trixie (24.11), sid or bookworm, alone and with this machine's (docs/dpdk.md; needs root)
	@scripts/test-dpdk.sh $(SUITE)

.PHONY: test-vm
test-vm: | $(LOG) ## virtual machines with the vNICs that DPDK's drivers are for (docs/vm.md; needs root); MODELS=virtio,igb,vmxnet3,e1000e chooses
	@scripts/vm-deps.sh "$(MODELS)"
	@cd tests && MACHNET_VM_MODELS="$(MODELS)" go test -count=1 -timeout 40m -json ./vm > ../$(LOG)/vm.json || ../scripts/go-failures.sh ../$(LOG)/vm.json
	@scripts/go-score.sh test-vm $(LOG)/vm.json

.PHONY: test-setup
test-setup: | $(LOG) ## machnet setup in network namespaces, with a made-up /sys, and with virtio's NIC in a guest: all is compared before and after (needs root)
	@if [ $$(id -u) -ne 0 ]; then echo "test-setup: it takes root to change a namespace or a guest: skipped"; exit 0; fi; \
	    where=all; scripts/vm-deps.sh virtio || { echo "test-setup: without a guest"; where=namespaces; }; \
	    (cd cmd && go test -count=1 -json ./internal/machine ./internal/setup) > $(LOG)/setup.json || scripts/go-failures.sh $(LOG)/setup.json; \
	    (cd tests && MACHNET_SETUP=$$where go test -count=1 -parallel 8 -json ./setup) >> $(LOG)/setup.json || scripts/go-failures.sh $(LOG)/setup.json; \
	    scripts/go-score.sh test-setup $(LOG)/setup.json

.PHONY: test-vm-virtio
test-vm-virtio: # the part of `make test`
	@if [ $$(id -u) -ne 0 ]; then echo "test-vm: guests need root for the network between them: skipped"; exit 0; fi; \
	    scripts/vm-deps.sh virtio || { echo "test-vm: skipped"; exit 0; }; \
	    $(MAKE) --no-print-directory test-vm MODELS=virtio

ROUNDS := 100
.PHONY: test-conn
test-conn: ## nettest.TestConn ROUNDS=100 times in a row, -race: between two sidecars, within one, and between hosts in the process
	cd tests && MACHNET_CONN_ROUNDS=$(ROUNDS) go test -count=1 -race -short -timeout 120m -v -run 'TestConnections' ./conformance ./e2e | grep -E '^(--- |ok|FAIL|panic)|_test.go|conformance.go|round $(ROUNDS) '

CONNECTIONS := 10000
.PHONY: test-many
test-many: ## CONNECTIONS=10000 of one process, a goroutine each, and as many dials given up: between two sidecars, and between hosts in the process
	cd tests && MACHNET_CONNECTIONS=$(CONNECTIONS) go test -count=1 -timeout 30m -v -run TestAProcessHasAsManyConnectionsAsItWants ./e2e
	cd go/machnettest && MACHNET_CONNECTIONS=$(CONNECTIONS) MACHNET_DIALS=$(CONNECTIONS) go test -count=1 -timeout 30m -v \
	    -run 'TestConnectionsAreBoundedByMemoryAlone|TestDialsCancelledAtAnyMomentLeaveNothingBehind' .

.PHONY: deb
deb: build ## Debian packages of the sidecar and of the client library, in target/deb (docs/service.md)
	scripts/deb.sh $(VERSION) $(ABI) $(CLIENT_ARCHIVE) target/deb

.PHONY: test-packaging
test-packaging: ## the unit, manual pages, completions, Debian packages and Kubernetes' manifests; what needs root is skipped without
	@scripts/deps.sh dpkg-dev fish lintian man-db mandoc systemd zsh || echo "test-packaging: what needs these is skipped"
	cd tests && go run ./packaging -version $(VERSION) -abi $(ABI) -archive $(CLIENT_ARCHIVE)

.PHONY: test-doctor
test-doctor: | $(LOG) ## break what `machnet doctor` checks, one thing at a time, and mend it as it says (docs/doctor.md; needs root)
	@if [ $$(id -u) -ne 0 ]; then echo "test-doctor: mounts and network namespaces need root: skipped"; exit 0; fi; \
	    (cd tests && MACHNET_DOCTOR=1 go test -count=1 -timeout 10m -parallel 4 -json ./doctor > ../$(LOG)/doctor.json) || scripts/go-failures.sh $(LOG)/doctor.json; \
	    scripts/go-score.sh test-doctor $(LOG)/doctor.json

.PHONY: slowest
slowest:
	@scripts/slowest.sh $(LOG)

.PHONY: fuzz
TIME := 60
fuzz: ## every fuzz target, or TARGET=name, for TIME=60 seconds (needs nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh run $(TIME) $(TARGET)

.PHONY: fuzz-replay
FUZZ_TARGETS := $(sort $(notdir $(basename $(wildcard rust/fuzz/fuzz_targets/*.rs))))
REPLAY = $(or $(TARGET),$(notdir $(patsubst %/,%,$(dir $(FILE)))))
fuzz-replay: ## one input on stable Rust: FILE=rust/fuzz/artifacts/frame/crash-..., TARGET where the folder does not say it
	@test -f "$(FILE)" || { echo "make fuzz-replay: no file '$(FILE)'; say FILE=rust/fuzz/artifacts/TARGET/NAME"; exit 1; }
	@test -n "$(filter $(FUZZ_TARGETS),$(REPLAY))" || { echo "make fuzz-replay: no target '$(REPLAY)'; say TARGET=NAME, one of $(FUZZ_TARGETS)"; exit 1; }
	MACHNET_FUZZ_FILE=$(abspath $(FILE)) cargo test --locked -p machnet-fuzz-bodies --test replay -- --exact $(REPLAY)

.PHONY: fuzz-seeds
fuzz-seeds: ## choose the kept inputs anew from what fuzzing found, of every target or of TARGET=name
	@scripts/fuzz.sh seeds $(TARGET)

.PHONY: lint
lint: ## rustfmt, clippy, gofmt, go vet, staticcheck; warnings are errors
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@test -z "$$(gofmt -l go cmd tests)" || { gofmt -l go cmd tests; echo "gofmt: the files above are not formatted; run gofmt -w"; exit 1; }
	for m in $(GO_MODULES); do (cd $$m && go vet ./... && go run $(STATICCHECK) ./...); done

.PHONY: bench
bench: build ## the tables of docs/performance.md (twenty minutes; those over veth only as root)
	$(BIN)/machnet bench --link memif --size 64,1024,32768 --rounds 5 --duration 500ms
	$(BIN)/machnet bench --link local --size 64 --rounds 5 --duration 500ms
	$(BIN)/machnet bench churn
	$(BIN)/machnet bench isolation
	$(BIN)/machnet bench hogs
	$(BIN)/machnet-sim isolation
	$(BIN)/machnet-sim scaling
	$(BIN)/machnet bench setup --link sim
	$(BIN)/machnet bench setup --link memif
	if [ $$(id -u) -ne 0 ]; then echo "bench: not root, so nothing over veth"; exit 0; fi; \
	    $(BIN)/machnet bench --link memif --kernel frames --throughput --rounds 5 --duration 500ms; \
	    $(BIN)/machnet bench --link veth --size 64,1024,32768 --rounds 5 --duration 500ms; \
	    $(BIN)/machnet bench setup --link veth; \
	    $(BIN)/machnet bench --link veth --loss 0.0001 --size 64 --inflight 1 --rounds 3 --duration 500ms; \
	    $(BIN)/machnet bench --link veth --loss 1 --size 64 --inflight 1 --rounds 3 --duration 500ms; \
	    $(BIN)/machnet bench --link veth --kernel frames --throughput --rounds 5 --duration 500ms; \
	    $(BIN)/machnet bench --link veth --throughput --loss 1 --rounds 3 --duration 500ms

.PHONY: bench-go
bench-go: build ## Go beside the C program on the same sidecars, and 1 to 10 000 connections beside TCP (three minutes)
	$(BIN)/machnet bench go
	$(BIN)/machnet bench --connections 1,10,100,1000,10000 --rounds 5 --duration 1s

.PHONY: bench-instr
bench-instr: ## instructions of one 64 B echo, by stage (callgrind); FILES=n names the n files that cost most
	@scripts/deps.sh valgrind
	@scripts/bench-instr.sh $(or $(FILES),0)

.PHONY: bench-parts
bench-parts: ## what the parts of an engine's round cost (callgrind), for the figures in virtual time
	@scripts/deps.sh valgrind
	@scripts/parts-instr.sh

.PHONY: header
header: ## write the C header anew
	MACHNET_WRITE=1 cargo test --locked -p machnet header_is_current

.PHONY: metrics-table
metrics-table: ## write the tables of docs/metrics.md anew
	MACHNET_WRITE=1 cargo test --locked -p machnetd --bin machnetd documentation

.PHONY: archives
archives: deps ## the static archives of both platforms, which git keeps (docs/packaging.md)
	scripts/archives.sh all every

.PHONY: test-archives
test-archives: ## make them anew, and compare with what git has, byte for byte
	@scripts/test-archives.sh

.PHONY: test-goget
test-goget: ## what a user gets who has Go and a C compiler, and neither Rust nor network
	@scripts/deps.sh musl-tools $(if $(filter amd64,$(GOARCH)),gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user) || \
	    echo "test-goget: what needs these is skipped"
	cd tests && go run ./goget

.PHONY: container
IMAGE := localhost/machnet
container: ## the image IMAGE=localhost/machnet (docs/container.md); PLATFORM=linux/arm64 for another platform, BASES=local without a registry (as root)
	@container/image.sh $(IMAGE)

.PHONY: test-container
test-container: ## builds the image without a registry and runs it with podman: demo, compose file, restarts, lost cores, devices (needs root)
	@scripts/deps.sh podman runc debootstrap || echo "test-container: without these everything is skipped"
	cd tests && go run ./container

.PHONY: clean
clean: ## remove what the build made
	rm -rf target bin

$(LOG):
	mkdir -p $(LOG)
