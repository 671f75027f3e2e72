# Orca. `make help` lists the targets.
GO      ?= go
PROTOC  ?= protoc
BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

generate: ## regenerate the protobuf code
	$(PROTOC) -I metaplane/metapb --go_out=. --go_opt=module=orca --go-vtproto_out=. --go-vtproto_opt=module=orca,features=marshal+unmarshal+size+pool metaplane/metapb/*.proto
