#!/usr/bin/env bash
# Generates the Go code from proto/, and the tables of fields in docs/checks. It runs offline once the modules are in the module cache: buf comes from the tools module, the plugins from
# the product's own go.mod, so that generated code and runtime always fit.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$bin:$PATH" go tool -modfile=internal/tools/go.mod buf generate --template internal/tools/buf.gen.yaml
