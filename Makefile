# make test is what CI runs; it needs Go, gcc and make, and tests the Python
# client where python3 is there. The other targets are the same tests for longer,
# and the benchmarks.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

# Every module stands for itself: with the workspace on, one module's
# requirements would raise another's versions.
export GOWORK := off

GO          ?= go
FUZZTIME    ?= 3s
CRASHROUNDS ?= 2000
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# The modules of the repository, the root last.
MODULES := $(shell find . -name go.mod -not -path '*/testdata/*' | xargs dirname | sort -r)

# $(call each-module,COMMAND) runs COMMAND in every module, all of them even
# when one fails, and fails when one did.
each-module = @failed=; for m in $(MODULES); do \
	echo "--- $$m: $(1)"; (cd $$m && $(1)) || failed="$$failed $$m"; done; \
	test -z "$$failed" || { echo "failed in:$$failed" >&2; exit 1; }

# $(call dirs-with,REGEXP) is the directories of test files that have REGEXP.
dirs-with = $$({ grep -rlE --include='*_test.go' '$(1)' . || true; } | xargs -r dirname | sort -u)

# The Python of the tests, 3.9 or newer.
PYTHON      ?= python3
VENV        := clients/python/.venv

.PHONY: all build man release python test format tidy vet staticcheck vuln race simulate fuzz crash bench bench-append bench-verify bench-memory bench-socket bench-hook bench-otlp bench-detect bench-policy bench-encrypt bench-seal bench-archive clean

all: build

build:
	$(GO) build -trimpath -o bin/kaizen-audit ./cmd/kaizen-audit

# The manual pages, for installing from a checkout; a release has them.
man: build
	bin/kaizen-audit man bin/man/man1

# Archives for each system, with SHA256SUMS, in dist/. VERSION says the version
# where the source is no checkout with tags.
release:
	rm -rf dist
	$(GO) run ./internal/release -out dist -version "$(VERSION)"

# The Python client: built and installed with pip as a user does it, in a
# folder of its own, and run against the binary. The frameworks that it adapts
# to are tested where pip can have them.
python: build
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "python: skipped, python3 with venv is not there"; test -z "$${CI:-}"; exit; \
	fi; \
	set -x; \
	$(PYTHON) -m venv --clear $(VENV); \
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-index ./clients/python; \
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --retries 0 --timeout 10 \
		-r clients/python/tests/requirements.txt >/dev/null 2>&1 || echo "python: no package index: tests with real frameworks are skipped"; \
	cd clients/python/tests; \
	KAIZEN_AUDIT_BIN=$(CURDIR)/bin/kaizen-audit ../.venv/bin/python -W error::ResourceWarning -m unittest

# The race tests are last, so that their summary ends the output.
test: format vet staticcheck vuln fuzz python simulate race

format:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { printf 'not formatted by gofmt:\n%s\n' "$$unformatted" >&2; exit 1; }

# After a change of the root's requirements the other modules follow.
tidy:
	$(call each-module,$(GO) mod tidy)

# Packages with tests are vetted on the way to them, with all of vet's checks (race).
vet:
	$(call each-module,$(GO) list -f '{{if not (or .TestGoFiles .XTestGoFiles)}}{{.ImportPath}}{{end}}' ./... | xargs -r $(GO) vet)

staticcheck:
	$(call each-module,$(GO) run $(STATICCHECK) ./...)

# A vulnerability fails; a database that can't be reached does not.
vuln:
	@for m in $(MODULES); do \
		echo "--- $$m: govulncheck"; \
		out=$$(cd $$m && $(GO) run $(GOVULNCHECK) ./... 2>&1) && continue; \
		if grep -q 'fetching vulnerabilities' <<<"$$out"; then \
			echo "govulncheck: skipped, its database can't be reached"; exit 0; \
		fi; \
		echo "$$out" >&2; exit 1; \
	done

# The modules whose tests run without the race detector: an SDK would be compiled
# once more for it, which takes minutes. What is ours in them stands on hook and
# adapter/llmhttp, whose tests run with it.
HEAVY := ./adapter/anthropic ./adapter/eino ./adapter/openai ./agent ./cmd/kaizen-audit-kms ./kms/cloud

race:
	$(call each-module,$(GO) test $$([[ " $(HEAVY) " == *" $$m "* ]] || echo -race) -vet=all -timeout 15m ./...)

# The simulations that are shortened under the race detector, which makes seconds
# of signing into minutes, in full.
simulate:
	$(GO) test -run '^(TestManySecondsLeaveNoLitter|TestCrashPowerFailure|TestCrashPowerFailureWritten|TestCrashEachOperationFails|TestCrashManyWritersPowerFailure|TestRecordAllocatesLittle|TestTamperEveryBitOfTheCheckpoint|TestASignersTrailSurvivesACrashAtEveryStep|TestWriteOnlySurvivesACrashAtEveryStep)$$' .

# Each fuzz test of the repository for $(FUZZTIME).
fuzz:
	@GO="$(GO)" .ci/fuzz $(FUZZTIME) $(call dirs-with,^func Fuzz)

# The crash tests with many rounds.
crash:
	@for d in $(call dirs-with,"crash\.rounds"); do ( cd $$d; \
		$(GO) test -run Crash -count=1 -timeout 2h -v . -crash.rounds=$(CRASHROUNDS) ); done

bench: bench-append bench-socket bench-hook bench-otlp bench-verify bench-memory bench-detect bench-policy bench-encrypt bench-seal bench-archive

bench-append:
	cd bench && $(GO) run ./append $(ARGS)

bench-verify:
	cd bench && $(GO) run ./verify $(ARGS)

bench-socket:
	cd bench && $(GO) run ./socket $(ARGS)

bench-hook:
	cd bench && $(GO) run ./hook $(ARGS)

bench-otlp:
	cd bench && $(GO) run ./otlp $(ARGS)

bench-detect:
	cd bench && $(GO) run ./detect $(ARGS)

bench-memory:
	cd bench && $(GO) run ./memory $(ARGS)

bench-policy:
	cd bench && $(GO) run ./policy $(ARGS)

bench-encrypt:
	cd bench && $(GO) run ./encrypt $(ARGS)

bench-seal:
	cd bench && $(GO) run ./seal $(ARGS)

bench-archive:
	cd bench && $(GO) run ./archive $(ARGS)

clean:
	rm -rf bin dist bench/bench-*-[0-9]*
