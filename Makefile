# Orca. `make help` lists the targets; CI calls nothing else.
SHELL   := /bin/bash
GO      ?= go
PROTOC  ?= protoc
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/orca
TOOLS   := $(CACHE)/bin
LDFLAGS := -X orca/engine/buildinfo.Version=$(VERSION)
# Where `make run` keeps its state and what it serves.
DATA    ?= $(CURDIR)/orca-data
ARGS    ?=

STATICCHECK := $(TOOLS)/staticcheck-v0.8.0
GOLANGCI    := $(TOOLS)/golangci-lint-v2.15.0

# Packages where goroutines meet; `make race` runs them under the detector. Of the
# mount it leaves out what takes minutes: whole trees, and each behaviour in a
# process of its own.
RACE := ./dataplane/... ./tiers/... ./ufs/... ./jobs/... ./metaplane/... ./engine/client/...
FUSE_SLOW := TestTreesCopyAndCompare|TestRealStackBehaves|TestBehavesAsANativeFileSystem

.DEFAULT_GOAL := help
.PHONY: help build run deps test unit check race lint bench fuzz-smoke sim generate generate-check golden clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/orca and bin/orcabench
	@mkdir -p bin
	@echo "building bin/orca and bin/orcabench (the first build compiles the Raft and storage engines: a few minutes)"
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/orca ./engine/cmd/orca
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/orcabench ./bench/cmd/orcabench

run: build ## build, then serve a local folder with all roles in one process (DATA=, ARGS=)
	@exec bin/orca up --data $(DATA) $(ARGS)

deps: ## install what the tests need (fuse3, iproute2, MinIO), if missing
	@bash .ci/deps

test: deps check unit race ## install what is missing, then every test

unit: ## all tests, no race detector
	$(GO) test -count=1 -timeout 20m ./...

check: ## vet, staticcheck and the house rules (under 3 minutes)
	$(GO) vet ./...
	@test -x $(STATICCHECK) || { mkdir -p $(TOOLS); echo "building staticcheck"; GOBIN=$(TOOLS)/sc $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.0 && mv $(TOOLS)/sc/staticcheck $(STATICCHECK); }
	$(STATICCHECK) ./...
	$(GO) test -count=1 .

race: ## the concurrent packages under the race detector
	$(GO) test -race -short -count=1 -timeout 30m $(RACE)
	$(GO) test -race -short -count=1 -timeout 10m -skip '$(FUSE_SLOW)' ./engine/fusegw

lint: check ## golangci-lint with the full set (slow to build the first time)
	@test -x $(GOLANGCI) || { mkdir -p $(TOOLS); echo "building golangci-lint (about ten minutes)"; GOBIN=$(TOOLS)/gl $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 && mv $(TOOLS)/gl/golangci-lint $(GOLANGCI); }
	$(GOLANGCI) run ./...

bench: build ## run every benchmark suite side by side with its baseline
	@for s in env io slowpeer meta fuse evict; do bin/orcabench run $$s || exit 1; done

fuzz-smoke: ## ten seconds of each fuzz target
	@set -e; for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -rhoE '^func (Fuzz[A-Za-z0-9_]+)' $$p/*_test.go | awk '{print $$2}'); do \
	    echo "fuzz $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 10s $$p; done; done

SEED  ?=
SEEDS ?= 3000
sim: ## the metaplane's simulator: SEEDS= how many, or SEED= one with its trace
	$(GO) test -count=1 -timeout 60m ./fuzz/sim -run TestSeeds -v $(if $(SEED),-seed $(SEED) -trace,-seeds $(SEEDS))

PROTO_FLAGS := --go_out=. --go_opt=module=orca --go-vtproto_out=. --go-vtproto_opt=module=orca,features=marshal+unmarshal+size+pool

generate: ## regenerate the protobuf code and the reference docs
	@command -v $(PROTOC) >/dev/null || { echo "protoc is missing: install protobuf-compiler" >&2; exit 1; }
	@mkdir -p $(TOOLS)/pb
	@test -x $(TOOLS)/pb/protoc-gen-go || GOBIN=$(TOOLS)/pb $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	@test -x $(TOOLS)/pb/protoc-gen-go-vtproto || GOBIN=$(TOOLS)/pb $(GO) install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@v0.6.1-0.20240319094008-0393e58bdf10
	@set -e; for d in $$(find . -name '*.proto' -not -path './bin/*' -printf '%h\n' | sort -u); do \
	  echo "protoc $$d"; PATH=$(TOOLS)/pb:$$PATH $(PROTOC) -I $$d $(PROTO_FLAGS) $$d/*.proto; done

generate-check: generate ## regenerate, then the tree must be clean
	@git diff --exit-code --stat

golden: ## rewrite the golden files; the diff is the review
	$(GO) test ./... -rewrite 2>/dev/null || true
	@git diff --stat

clean: ## remove build results
	rm -rf bin
