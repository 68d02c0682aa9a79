# Builds everything that the k0s executable carries. Each helper and image is built below
# build/embedded/<name>, packed as build/embedded/packed/<name>.{zst,tar,json}, and put into
# embedded-bins/assets, which the executable embeds. Nothing is done twice: a program is
# built again when its own folder here changes.

E := build/embedded
P := $(E)/packed

HELPERS := runc containerd-shim-runc-v2 cni pf
IMAGES  := pause coredns metrics-server

# Programs of other modules: neither the flags of our own build nor those that whoever
# builds has set for Go apply to them. (An empty GOFLAGS would not hide the latter.)
GO_FOR_C := GOFLAGS='-trimpath -buildvcs=false' CGO_ENABLED=1 go
GO_OTHER := GOFLAGS='-trimpath -buildvcs=false' CGO_ENABLED=0 go

GOARCH := $(shell go env GOARCH)

# pinned(folder,module): the version of a module which go.mod of a folder requires.
pinned = $(shell awk '$$1 == "require" { sub("require ", "") } $$1 == "$2" { print $$2 }' embedded-bins/$1/go.mod)

RUNC_VERSION           := $(patsubst v%,%,$(call pinned,runc,github.com/opencontainers/runc))
CONTAINERD_VERSION     := $(patsubst v%,%,$(call pinned,containerd-shim-runc-v2,github.com/containerd/containerd/v2))
CNI_VERSION            := $(patsubst v%,%,$(call pinned,cni,github.com/containernetworking/plugins))
COREDNS_VERSION        := $(call pinned,images/coredns,github.com/coredns/coredns)
METRICS_SERVER_VERSION := $(call pinned,images/metrics-server,sigs.k8s.io/metrics-server)
PAUSE_VERSION          := 3.10.2

embedded-bins/assets/index.json: $(HELPERS:%=$(P)/%.json) $(IMAGES:%=$(P)/%.json) $(E)/pack
	$(E)/pack index -out $(@D) $(filter %.json,$^)

$(E)/pack: $(wildcard embedded-bins/pack/*.go) internal/assets/index.go
	@mkdir -p $(P)
	go build -o $@ ./embedded-bins/pack

# The OS packages needed below; the stamp saves looking for them each time.
$(E)/needed: embedded-bins/need.sh
	embedded-bins/need.sh gcc libc6-dev libseccomp-dev pkg-config musl-tools zstd dpkg
	@mkdir -p $(@D) && touch $@

# --- helpers

pack_helper = $(E)/pack helper -name $(1) -version $(2) -out $(P) $(E)/$(1)/tree

# runc is the one program with C in it; both C and Go are linked statically.
$(P)/runc.json: embedded-bins/runc/go.mod embedded-bins/runc/go.sum $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/runc/tree && mkdir -p $(E)/runc/tree
	cd embedded-bins/runc && $(GO_FOR_C) build \
		-tags 'seccomp netgo osusergo urfave_cli_no_docs grpcnotrace' \
		-ldflags "-s -w -buildid= -linkmode external -extldflags '-static -Wl,--build-id=none'" \
		-o $(CURDIR)/$(E)/runc/tree/runc github.com/opencontainers/runc
	$(call pack_helper,runc,runc=$(RUNC_VERSION))

$(P)/containerd-shim-runc-v2.json: embedded-bins/containerd-shim-runc-v2/go.mod embedded-bins/containerd-shim-runc-v2/go.sum $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/containerd-shim-runc-v2/tree && mkdir -p $(E)/containerd-shim-runc-v2/tree
	cd embedded-bins/containerd-shim-runc-v2 && $(GO_OTHER) build -tags 'no_grpc grpcnotrace netgo osusergo' \
		-ldflags '-s -w -buildid= -X github.com/containerd/containerd/v2/version.Version=$(CONTAINERD_VERSION)' \
		-o $(CURDIR)/$(E)/containerd-shim-runc-v2/tree/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	$(call pack_helper,containerd-shim-runc-v2,containerd-shim-runc-v2=$(CONTAINERD_VERSION))

# The plugins are links to one program, in a folder of their own: "bridge" is also the
# name of a tool that a PATH may hold.
CNI_PLUGINS := k0s-policy $(shell awk '/plugins\/plugins\// { n = split($$NF, part, "/"); print part[n] }' embedded-bins/cni/go.mod)

$(P)/cni.json: embedded-bins/cni/go.mod embedded-bins/cni/go.sum embedded-bins/cni/generate/main.go $(wildcard embedded-bins/cni/k0s-policy/*.go) $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/cni/tree && mkdir -p $(E)/cni/tree/cni
	cd embedded-bins/cni && $(GO_OTHER) run ./generate $(CURDIR)/$(E)/cni/src
	cd $(E)/cni/src && $(GO_OTHER) build \
		-ldflags '-s -w -buildid= -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v$(CNI_VERSION)' \
		-o $(CURDIR)/$(E)/cni/tree/cni/plugins .
	for plugin in $(CNI_PLUGINS); do ln -s plugins $(E)/cni/tree/cni/$$plugin; done
	$(call pack_helper,cni,cni-plugins=$(CNI_VERSION))

$(P)/pf.json: $(wildcard embedded-bins/pf/*) $(E)/needed $(E)/pack embedded-bins/build.mk
	embedded-bins/pf/build.sh $(E)/pf
	$(call pack_helper,pf,$$(cat $(E)/pf/versions))

# --- images

pack_image = $(E)/pack image -name $(1) -version $(2) -ref k0s.io/$(1):$(2) -arch $(GOARCH) -out $(P)

$(P)/pause.json: embedded-bins/images/pause/pause.c $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/pause/root && mkdir -p $(E)/pause/root
	musl-gcc -static -Os -Wall -Wextra -Werror -Wl,--build-id=none -s -DVERSION='"$(PAUSE_VERSION)"' -o $(E)/pause/root/pause $<
	$(call pack_image,pause,$(PAUSE_VERSION)) -entrypoint /pause -user 65535:65535 $(E)/pause/root

$(P)/coredns.json: $(wildcard embedded-bins/images/coredns/*) internal/memory/memory.go $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/coredns/root && mkdir -p $(E)/coredns/root
	cd embedded-bins/images/coredns && $(GO_OTHER) build -tags grpcnotrace \
		-ldflags '-s -w -buildid= -X github.com/coredns/coredns/coremain.GitCommit=k0s' -o $(CURDIR)/$(E)/coredns/root/coredns .
	$(call pack_image,coredns,$(COREDNS_VERSION)) -entrypoint /coredns $(E)/coredns/root

# metrics-server writes its certificate to /tmp and takes its version from client-go.
$(P)/metrics-server.json: embedded-bins/images/metrics-server/main.go embedded-bins/images/metrics-server/go.mod embedded-bins/images/metrics-server/go.sum internal/memory/memory.go $(E)/needed $(E)/pack embedded-bins/build.mk
	@rm -rf $(E)/metrics-server/root && mkdir -p $(E)/metrics-server/root/tmp && chmod 1777 $(E)/metrics-server/root/tmp
	cd embedded-bins/images/metrics-server && $(GO_OTHER) build -tags 'grpcnotrace providerless' \
		-ldflags '-s -w -buildid= -X k8s.io/client-go/pkg/version.gitVersion=$(METRICS_SERVER_VERSION)' \
		-o $(CURDIR)/$(E)/metrics-server/root/metrics-server .
	$(call pack_image,metrics-server,$(METRICS_SERVER_VERSION)) -entrypoint /metrics-server -user 65534:65534 $(E)/metrics-server/root
