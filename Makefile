# Everything a contributor runs. `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=

# Go stamps the revision into what it builds, and fails where git refuses to look
# into a checkout that belongs to another user, as under root in a container.
export GOFLAGS += $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

.PHONY: build
build: ## Build bin/twinspan
	@go build -trimpath -o bin/twinspan ./cmd/twinspan

.PHONY: demo
demo: ## Two servers, a workload and a link (ARGS='--no-ui --exit-after 30s')
	@scripts/ensure-postgres
	@$(MAKE) --no-print-directory build
	@exec bin/twinspan demo $(ARGS)

.PHONY: test
test: ## Vet, and all tests on real servers
	@scripts/ensure-tests
	@go vet ./...
	@scripts/test

.PHONY: slowest
slowest: ## Run all tests and list those that took longest (COUNT=30)
	@scripts/ensure-tests
	@scripts/slowest

.PHONY: race
race: ## Run all tests with the race detector, also in the agents that tests start (PACKAGES=./...)
	@scripts/ensure-tests
	@GORACE=halt_on_error=0 scripts/test -race -count=1 -timeout 120m $(or $(PACKAGES),./...)

.PHONY: check
check: ## The quick check before a commit: format, vet, staticcheck, vulnerabilities, generated files, tests without servers
	@scripts/check

.PHONY: matrix
matrix: ## Fetch PostgreSQL 10 to 18 and test the version pairings
	@scripts/ensure-postgres
	@scripts/fetch-majors
	@TWINSPAN_MATRIX=all go test -count=1 -p 1 -timeout 120m -run Matrix ./...

.PHONY: walk
walk: ## Take random walks through schemas, settings and failovers over a link (STEPS=1000 SEED=drawn WALKS=5)
	@scripts/ensure-tests
	@for n in $$(seq $(or $(WALKS),5)); do \
		seed=$(or $(SEED),$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')); \
		TWINSPAN_TEST_ODD=$${TWINSPAN_TEST_ODD:-half} TWINSPAN_TEST_SEED=$$seed TWINSPAN_WALK=$(or $(STEPS),1000) TWINSPAN_WALK_SEED=$$seed \
		go test -count=1 -v -timeout 60m -run 'TestWalk$$' ./test || exit 1; \
	done

.PHONY: extensions
extensions: ## Create, use, move and drop every extension that the server has, over a link
	@scripts/ensure-tests
	@TWINSPAN_EXTENSIONS=all go test -count=1 -v -timeout 30m -run 'TestExtensions$$' ./test

.PHONY: regress
regress: ## Run PostgreSQL's own regression SQL on a linked primary and beside it (VERSION=15 FILES=all)
	@scripts/ensure-postgres
	@scripts/fetch-newest $(or $(VERSION),15)
	@sql=$$(scripts/fetch-regress $(or $(VERSION),15)) && TWINSPAN_TEST_MINOR=newest TWINSPAN_REGRESS=$(or $(VERSION),15) TWINSPAN_REGRESS_SQL=$$sql TWINSPAN_REGRESS_FILES='$(FILES)' \
		go test -count=1 -v -timeout 120m -run 'TestRegress$$' ./test

.PHONY: isolation
isolation: ## Run PostgreSQL's own isolation specs on a linked primary and beside it (VERSION=15 SPECS=all)
	@scripts/ensure-postgres
	@scripts/fetch-newest $(or $(VERSION),15)
	@sql=$$(scripts/fetch-regress $(or $(VERSION),15)) && TWINSPAN_TEST_MINOR=newest TWINSPAN_ISOLATION=$(or $(VERSION),15) TWINSPAN_REGRESS_SQL=$$sql TWINSPAN_ISOLATION_SPECS='$(SPECS)' \
		go test -count=1 -v -timeout 120m -run 'TestIsolation$$' ./test

.PHONY: ha
ha: ## Link a Patroni cluster, switch it over and kill its leader (installs patroni and etcd)
	@scripts/ensure-postgres
	@go vet -tags ha ./test
	@dir=$$(scripts/ensure-patroni) && PATH="$${dir:+$$dir:}$$PATH" go test -tags ha -count=1 -timeout 15m -run Patroni ./test

.PHONY: members
members: ## Kill, freeze and wipe members of an instance under load (ROUNDS=5 SEED=drawn FREEZE=25; brings patroni, etcd and pgBackRest)
	@scripts/ensure-postgres
	@scripts/ensure-pgbackrest
	@go vet -tags ha ./test
	@dir=$$(scripts/ensure-patroni) && PATH="$${dir:+$$dir:}$$PATH" TWINSPAN_MEMBERS_ROUNDS=$(ROUNDS) TWINSPAN_MEMBERS_SEED=$(SEED) TWINSPAN_MEMBERS_FREEZE=$(FREEZE) \
		go test -tags ha -count=1 -v -timeout 60m -run Members ./test

.PHONY: ops
ops: ## Check the alert rules and the dashboard with a real Prometheus (fetched where there is none)
	@scripts/ensure-postgres
	@go vet -tags ops ./test
	@dir=$$(scripts/ensure-prometheus) && PATH="$${dir:+$$dir:}$$PATH" && export PATH && promtool check rules ops/alerts.yml && promtool test rules ops/alerts.test.yml && \
		go test -tags ops -count=1 -timeout 15m -run 'TestTheDashboard' ./test


.PHONY: docs
docs: ## Type every command of the guides in docs/ on real servers
	@scripts/ensure-postgres
	@go vet -tags docs ./test
	@go test -tags docs -count=1 -v -timeout 30m -run 'TestTheBook' ./test

.PHONY: backup
backup: ## Keep backups in a directory, S3, Azure and GCS at once, break what can break, and restore from each (fetches the stores)
	@scripts/ensure-tests
	@go vet -tags backup ./test
	@dir=$$(scripts/ensure-stores) && TWINSPAN_STORES="$$dir" go test -tags backup -count=1 -timeout 30m -run 'TestStores' ./test

.PHONY: ui
ui: ## Use the web pages in a browser, judge them, and take their pictures into dist/ui (installs chromium and npm packages)
	@scripts/ensure-postgres
	@go vet -tags ui ./test
	@mkdir -p dist/ui
	@dir=$$(scripts/ensure-browser) && TWINSPAN_UI_MODULES=$$dir TWINSPAN_UI_PICTURES=$(CURDIR)/dist/ui go test -tags ui -count=1 -timeout 15m -run Browser ./test

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (60s) each
	@scripts/fuzz

.PHONY: bench
bench: ## Compare with every peer on this machine (ARGS='-cases tpcb -rounds 5')
	@scripts/ensure-postgres
	@exec go run ./bench $(ARGS)

.PHONY: gobench
gobench: ## Run the Go benchmarks of the hot paths
	@scripts/ensure-postgres
	@go test -run '^$$' -bench . -benchmem -p 1 -timeout 60m ./...

.PHONY: deb
deb: ## Build a Debian package in dist/ and look into it (VERSION=0.1.0 sees that it is that one)
	@scripts/deb $(VERSION)

.PHONY: release
release: ## Build all that is published in dist/, and look into it: .deb, .rpm, an image, sums (VERSION=0.1.0 sees that it is that one)
	@scripts/release all $(VERSION)

.PHONY: package-test
package-test: ## Build everything twice, see that it is the same, and install, upgrade and purge it
	@scripts/package-test $(VERSION)

.PHONY: generated
generated: ## Write generated files anew
	@go generate ./...

.PHONY: clean
clean: ## Remove what was built
	@rm -rf bin dist coverage.out
