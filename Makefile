# Targets for daily work. .ci/run is what decides; it needs no make.
.DEFAULT_GOAL := help

BENCH ?= .
COUNT ?= 6
PKG ?= ./...

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: all
all: ## Everything that CI does
	.ci/run

.PHONY: test
test: ## Run the tests (PKG=./retry for one package)
	go test $(PKG)

.PHONY: race
race: ## Run the tests with the race detector
	go test -race -p 2 $(PKG)

.PHONY: lint
lint: ## Formatting, vet, go fix, linters, layout, go.mod
	.ci/run format vet lint layout tidy

.PHONY: fuzz
fuzz: ## Run every fuzz target (FUZZTIME=1m for longer)
	.ci/run fuzz

.PHONY: bench
bench: ## Run benchmarks (BENCH=regexp PKG=./mesh COUNT=6)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(PKG)

.PHONY: demo
demo: ## Run the demonstration: a mesh of real processes on loopback
	go run ./examples/demo
