# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

IMG ?= pbxhook:dev
IMAGE_TOOL ?= docker
PLATFORMS ?=
FUZZTIME ?= 60s
N ?= 500
TOOL := go tool -modfile=hack/tools/go.mod
PACKAGES := $$(go list ./... | grep -v -e /test/e2e -e /test/fault)
BUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w"

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## the main job on this machine: PBXs, a receiver, a target (ONCE=1: one round, then end)
	go run ./cmd/pbxhook demo $(if $(ONCE),--once)

.PHONY: test
test: ## unit, golden, envtest, browser, clients and short fuzzing, with the race detector; gets its API server, browser, NATS and SDKs by itself
	assets=$$(hack/envtest) && chromium=$$(hack/chromium) && nats=$$(hack/nats-server) && clients=$$(hack/clients) && \
	KUBEBUILDER_ASSETS=$$assets PBXHOOK_CHROMIUM=$$chromium PBXHOOK_NATS_SERVER=$$nats PBXHOOK_CLIENTS=$$clients go test -race $(PACKAGES)
	$(MAKE) --no-print-directory fuzz FUZZTIME=10s

.PHONY: console-shots
console-shots: ## the docs' pictures of the console, taken anew
	chromium=$$(hack/chromium) && PBXHOOK_CHROMIUM=$$chromium go test -count=1 ./test/console -run 'TestDemo|TestNarrowAndDark' -shots

.PHONY: fuzz
fuzz: ## every fuzzer for FUZZTIME
	@for package in $(PACKAGES); do \
	  for fuzzer in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "go test $$package -run ^$$ -fuzz ^$$fuzzer$$ -fuzztime $(FUZZTIME)"; \
	    go test $$package -run '^$$' -fuzz "^$$fuzzer$$" -fuzztime $(FUZZTIME); \
	  done; \
	done

.PHONY: generate
generate: ## what is generated from the types and markers
	$(TOOL) controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...
	$(TOOL) controller-gen crd:maxDescLen=400 paths=./api/... output:crd:dir=config/crd
	$(TOOL) controller-gen rbac:roleName=pbxhook-operator paths=./controllers/... paths=./cmd/operator/... output:rbac:dir=config/rbac
	hack/chart-files

.PHONY: verify
verify: ## generated files up to date, format, vet, lint
	hack/verify-generated
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [[ -z $$unformatted ]] || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go mod tidy -diff
	go vet ./...
	$(TOOL) golangci-lint-kube-api-linter run ./...

.PHONY: build
build: ## bin/operator, bin/receiver, bin/pbxhook, static
	for command in operator receiver pbxhook; do $(BUILD) -o bin/$$command ./cmd/$$command; done
	ln -sf pbxhook bin/kubectl-pbxhook # which kubectl finds in the PATH, as kubectl pbxhook

.PHONY: image
image: ## the one image, in dist/image.tar (IMG=name:tag, IMAGE_TOOL=docker or buildah, PLATFORMS=linux/amd64,linux/arm64)
	IMG=$(IMG) PLATFORMS=$(PLATFORMS) hack/image $(IMAGE_TOOL)

.PHONY: sbom
sbom: ## what the image's binaries are made of, in dist/*.cdx.json (CycloneDX)
	hack/binaries linux/$$(go env GOARCH) dist/linux/$$(go env GOARCH)
	for command in operator receiver; do \
	  $(TOOL) cyclonedx-gomod bin -json -version "$$(git describe --tags --always)" -output dist/$$command.cdx.json dist/linux/$$(go env GOARCH)/$$command; \
	done

.PHONY: build-installer
build-installer: ## all that `kubectl apply` installs, in dist/install.yaml, with the image $(IMG)
	mkdir -p dist
	$(TOOL) kustomize build config/default | sed 's|pbxhook:dev|$(IMG)|' >dist/install.yaml

.PHONY: chart
chart: ## the Helm chart, in dist/pbxhook-VERSION.tgz
	$(TOOL) helm package charts/pbxhook --destination dist

.PHONY: fault
fault: ## what breaks: real processes killed, ended, paused, starved of disk, fed by slow senders; NATS servers too
	DAMAGE_ROUNDS=600 go test -count=1 -timeout 5m -v -run TestRandomDamage ./receiver/journal
	nats=$$(hack/nats-server) && PBXHOOK_NATS_SERVER=$$nats go test -count=1 -timeout 20m -v ./test/fault

.PHONY: bench
bench: ## the receiver against its peers, in one run of ten minutes; leaves dist/bench.json and docs/performance.md
	mkdir -p dist
	command -v nginx >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; } >/dev/null
	$(BUILD) -o bin/receiver ./cmd/receiver
	for peer in ./bento ./stream github.com/nats-io/nats-server/v2; do \
	  program=$${peer%/v2}; (cd test/bench/peers && $(BUILD) -o ../../../bin/$${program##*/} $$peer); \
	done
	go run ./test/bench -doc docs/performance.md

.PHONY: bench-operator
bench-operator: ## the operator with N webhooks (500): writes, conflicts, time, memory; leaves dist/bench-operator.json
	mkdir -p dist
	$(BUILD) -o bin/operator ./cmd/operator
	assets=$$(hack/envtest kube-controller-manager) && KUBEBUILDER_ASSETS=$$assets go run ./test/bench/operator -n $(N) -operator bin/operator -out dist/bench-operator.json

.PHONY: e2e
e2e: ## end-to-end tests against the current KUBECONFIG; the image $(IMG) is loaded already
	IMG=$(IMG) go test -count=1 -timeout 20m -v ./test/e2e/...
