# k0s. Say `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# One set of flags for building, vetting, testing and linting: so each package of
# Kubernetes is compiled once and not once per purpose. No cgo: the result runs anywhere.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false -tags=no_btrfs,no_devmapper,no_zfs,providerless,netgo,osusergo
export GOTOOLCHAIN := local

include embedded-bins/build.mk

##@ Building

.PHONY: build
build: build/k0s ## build the k0s executable, everything included: build/k0s

# Commits, not the clock, date a build, so that two builds of one commit are equal.
COMMIT      := $(shell git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
COMMIT_TIME := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
BUILD_DATE  := $(shell date -u -d @$(or $(COMMIT_TIME),0) +%Y-%m-%dT%H:%M:%SZ)
KUBERNETES  := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2 }' go.mod)
VERSION     := $(shell git describe --tags --match 'v*' 2>/dev/null || echo $(KUBERNETES)+k0s.0)

kubernetes_version = -X $(1).gitVersion=$(KUBERNETES)+k0s -X $(1).gitMajor=$(word 1,$(subst ., ,$(KUBERNETES:v%=%))) \
	-X $(1).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES))) -X $(1).gitCommit=$(COMMIT) \
	-X $(1).gitTreeState=clean -X $(1).buildDate=$(BUILD_DATE)

LDFLAGS = -s -w -buildid= \
	-X k0s.io/k0s/internal/version.version=$(VERSION) -X k0s.io/k0s/internal/version.commit=$(COMMIT) \
	$(call kubernetes_version,k8s.io/component-base/version) $(call kubernetes_version,k8s.io/client-go/pkg/version)

# Whether anything is to be done, Go knows best.
.PHONY: build/k0s
build/k0s: embedded-bins/assets/index.json
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/k0s

.PHONY: embedded-bins
embedded-bins: embedded-bins/assets/index.json ## build only what k0s carries: helper programs and images

.PHONY: update-pf
update-pf: $(E)/needed ## lock the newest Debian packages of the packet filter tools
	embedded-bins/pf/build.sh $(E)/pf --lock

# The programs that k0s contains, as tools/notices wants them: folder:cgo:tags:package.
CONTAINED := .:0:no_btrfs,no_devmapper,no_zfs,providerless,netgo,osusergo:./cmd/k0s \
	embedded-bins/runc:1:seccomp,netgo,osusergo,urfave_cli_no_docs:github.com/opencontainers/runc \
	embedded-bins/containerd-shim-runc-v2:0:no_grpc,grpcnotrace:github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
	embedded-bins/cni:0::tool \
	embedded-bins/images/coredns:0:grpcnotrace:. \
	embedded-bins/images/metrics-server:0:grpcnotrace,providerless:.

write_notices = go -C tools build -o ../build/notices ./notices && GOFLAGS=-trimpath build/notices -packages $(E)/pf/packages.tsv -copyright $(E)/pf/copyright

.PHONY: notices
notices: $(P)/pf.json ## write THIRD_PARTY_NOTICES.md anew, and the full texts to build/
	$(write_notices) -table THIRD_PARTY_NOTICES.md -text build/THIRD_PARTY_NOTICES.txt $(CONTAINED)

.PHONY: generate
generate: ## write what comes from the types of k0s.yaml: default files, JSON schema, docs/configuration.md
	go run ./hack/configdoc

.PHONY: run
run: build/k0s ## start a cluster of one node on this host (root only); Ctrl-C ends it
	hack/run

.PHONY: clean
clean: ## remove everything that was built (Go's caches stay)
	rm -rf build
	find embedded-bins/assets -type f ! -name README -delete

##@ Checking

# SCENARIOS chooses folders of inttest, by default all: make inttest SCENARIOS='single crash'
SCENARIOS ?= ...
TIMEOUT   ?= 25m

# LONG tests take minutes each, and have a shorter neighbour in the same folder: make test leaves them to
# make inttest.
LONG := TestConvergence|TestEmptiedFiles|TestEtcdMembers|TestEveryStep|TestIPTables|TestIPv6First|TestMariaDB|TestMatrixDualStack|TestStartup

.PHONY: test
test: unit ## run the unit tests, then the scenarios on test hosts but for the longest
	$(MAKE) --no-print-directory inttest SKIP='^($(LONG))$$'
	@echo 'Left to make inttest: $(subst |, ,$(LONG))'

.PHONY: unit
unit: ## run the unit tests and go vet (root only: some make mounts and users of their own)
	go vet ./...
	go test $$(go list ./... | grep -v /inttest)
	go -C internal/memory test ./...

.PHONY: inttest
inttest: build/k0s ## run scenarios on test hosts (root only); SCENARIOS='a b' chooses some
	embedded-bins/need.sh iproute2 util-linux busybox-static e2fsprogs postgresql mariadb-server-core mariadb-client-core nats-server bird2 iperf3
	go test -count=1 -p 1 -timeout $(TIMEOUT) -skip '$(SKIP)' $(SCENARIOS:%=./inttest/%)

.PHONY: bench
bench: build/k0s ## measure size, start-up, memory, CPU and network, as a table and as JSON
	embedded-bins/need.sh iproute2 util-linux busybox-static iperf3
	go run ./inttest/bench -json build/bench.json

# Tools have a module of their own, so that they cannot move the versions of ours.
GOLANGCI := go tool -modfile=tools/go.mod golangci-lint

.PHONY: lint
lint: verify-lint-rules ## find fault with the code; `make fix` mends what can be mended
	$(GOLANGCI) run
	@# Programs of the build, which are in modules of their own.
	cd tools && go vet ./...
	cd embedded-bins/cni && $(GO_OTHER) vet ./...
	cd embedded-bins/images/coredns && $(GO_OTHER) vet ./...
	cd embedded-bins/images/metrics-server && $(GO_OTHER) vet -tags 'grpcnotrace providerless' ./...

.PHONY: verify-lint-rules
verify-lint-rules: ## check that make lint refuses what the house rules forbid
	@found=$$($(GOLANGCI) run ./.ci/lint-fixture 2>&1 || true); \
	for rule in 'k8s.io/kubernetes/pkg/util/slice.*(depguard)' 'os.Exit.*(forbidigo)' 'time.Sleep.*(forbidigo)'; do \
		grep -q "$$rule" <<<"$$found" || { echo "lint lets pass what should give $$rule:"; echo "$$found"; exit 1; }; \
	done; echo 'make lint refuses forbidden imports and calls.'

.PHONY: verify-generate
verify-generate: ## check that what `make generate` writes follows the types of k0s.yaml
	@rm -rf build/generate
	go run ./hack/configdoc -out build/generate
	@for file in $$(cd build/generate && find * -type f); do diff -u $$file build/generate/$$file || drifted=yes; done; \
		[[ -z $${drifted:-} ]] || { echo "The types of k0s.yaml have changed: run 'make generate'."; exit 1; }

# Packages without the big servers; ALL=1: with them, which takes 12 minutes more for each, cold.
OURS = $$(go list -f '{{.ImportPath}} {{join .Deps " "}}' ./... | grep -v $(if $(ALL),/inttest,'/inttest\| k8s.io/kubernetes/') | cut -d' ' -f1)

.PHONY: verify-architectures
verify-architectures: ## check that k0s compiles for amd64, arm64 and armv7 (ALL=1: also Kubernetes, etcd and containerd)
	for arch in amd64 arm64 arm; do GOARCH=$$arch GOARM=7 go build $(OURS); done

.PHONY: verify-reproducible
verify-reproducible: ## build the committed state in two places and compare the executables (10 minutes)
	rm -rf build/reproducible
	for place in one two/deeper; do \
		git clone --quiet . build/reproducible/$$place; \
		$(MAKE) --no-print-directory -C build/reproducible/$$place build; \
	done
	cmp build/reproducible/one/build/k0s build/reproducible/two/deeper/build/k0s
	rm -rf build/reproducible
	@echo 'Two builds of $(COMMIT) are equal, byte by byte.'

.PHONY: verify-notices
verify-notices: $(P)/pf.json ## check that THIRD_PARTY_NOTICES.md lists what k0s contains; `make notices` mends it
	$(write_notices) -table build/THIRD_PARTY_NOTICES.md $(CONTAINED)
	@diff -u THIRD_PARTY_NOTICES.md build/THIRD_PARTY_NOTICES.md || { echo "Dependencies have changed: run 'make notices'."; exit 1; }

.PHONY: fix
fix: ## mend what `make lint` finds, where a program can
	$(GOLANGCI) run --fix

.PHONY: help
help: ## this
	@echo "k0s: one executable that is a whole Kubernetes."
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile
