# Dormouse: targets for users first, then for developers. `make help` lists them.
.DEFAULT_GOAL := help
LINTER := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What is not for the race detector is compiled in one way, by tests too, so that the dependencies are compiled once.
PLAIN := CGO_ENABLED=0 GOFLAGS="$(shell go env GOFLAGS) -trimpath"
TESTS := go run ./internal/gotest
# Most tests wait most of the time: for timers, leases and processes.
RACE := -race -vet=off -p 3 -parallel 5 -timeout 14m
TESTFLAGS ?=
# The bounds of these are for processes that have the machine for themselves.
ALONE := ^(TestOwnership|TestHandoverDoesNotWaitForWorkers)$$

.PHONY: help run build test test-all lint cover bench fuzz crash chaos hostile model clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'

run: ## Build bin/dormouse and run all in one process: embedded NATS on 127.0.0.1:4222, archive in ./data/archive
	$(PLAIN) go build -ldflags '-X main.version=$(VERSION)' -o bin/dormouse ./cmd/dormouse
	bin/dormouse serve

build: ## Build the static binary bin/dormouse as it is released: with the drivers of all object stores
	$(PLAIN) go build -tags clouds,release -ldflags '-s -w -X main.version=$(VERSION)' -o bin/dormouse ./cmd/dormouse

test: ## Run all tests with the race detector, each in its short form: some 5 minutes, once all is compiled
	$(TESTS) $(RACE) -short -skip='$(ALONE)' $(TESTFLAGS) ./...
	$(TESTS) $(RACE) -short -run='$(ALONE)' -parallel 1 ./integration

test-all: ## Run the long forms of the tests that have one, which make test leaves out
	$(TESTS) -long $(RACE) -skip='$(ALONE)' $(TESTFLAGS) ./...
	$(TESTS) $(RACE) -run='^TestOwnership$$' -parallel 1 ./integration
	$(PLAIN) $(TESTS) -vet=off -run '^TestADayOfAMillionLogs$$' ./scheduler # its full size is too much for the race detector

lint: ## Check formatting, and what .golangci.yaml names; go vet for the drivers of all object stores too
	$(PLAIN) go run $(LINTER) run ./...
	$(PLAIN) go vet -tags clouds,release ./store/bucket ./integration/bench ./cmd/dormouse

cover: ## What make test covers, in tests and in the processes that they start: figures for each package, and cover/cover.html
	rm -rf cover && mkdir -p cover/tests cover/processes
	COVER_PROCESSES=$(CURDIR)/cover/processes $(TESTS) -vet=off -short -timeout 14m -covermode=atomic -coverpkg=./... $(TESTFLAGS) ./... \
	  -args -test.gocoverdir=$(CURDIR)/cover/tests
	go tool covdata percent -i=cover/tests,cover/processes
	go tool covdata textfmt -i=cover/tests,cover/processes -o=cover/cover.txt
	go tool cover -html=cover/cover.txt -o=cover/cover.html

bench: ## Measure this machine, the short form: a few minutes; the long form is bin/dormouse bench, about an hour
	$(PLAIN) go build -ldflags '-X main.version=$(VERSION)' -o bin/dormouse ./cmd/dormouse
	bin/dormouse bench --short

fuzz: ## Fuzz every decoder for 20 seconds each
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for name in $$(grep -ho '^func Fuzz[A-Za-z]*' $$dir/*_test.go | cut -c6-); do \
	    echo "$$dir $$name"; go test $$dir -run '^$$' -fuzz "^$$name$$" -fuzztime 20s; done; done

crash: ## Long crash campaign: 200 kill -9 restarts under load, judged by what publishers were acked
	DORMOUSE_CRASH_RESTARTS=200 go test -race -timeout 60m -count=1 -v -run 'TestCrash' ./integration

model: ## Check a model of the protocol with Spin, and that mutations of it are caught: some 7 minutes
	integration/model/check.sh

chaos: ## Long chaos campaign: half an hour of kills, freezes and network cuts, judged likewise
	DORMOUSE_CHAOS_TIME=30m go test -race -timeout 90m -count=1 -v -run 'TestChaos' ./integration/chaos

hostile: ## Long campaign of a hostile publisher: ten minutes of whatever the protocol allows, and kills, judged likewise
	DORMOUSE_HOSTILE_TIME=10m go test -race -timeout 60m -count=1 -v -run 'TestHostilePublisher' ./integration/hostile

clean: ## Remove what make build, make run and make cover leave
	rm -rf bin data cover
