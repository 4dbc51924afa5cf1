# Each target does its own set-up (.ci/prepare) and skips what is already there.
#
#   PYTHON=python3.12     the interpreter of the virtual environment
#   TEST_ARGS="-k cart"   passed to pytest        BENCH_ARGS, DEMO_ARGS, FUZZ_ARGS: likewise

SHELL = /bin/sh
PYTHON ?=
TEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
EXAMPLE ?= flask
FUZZ_ARGS ?=
SECONDS ?= 60
MINUTES ?= 10
SEEDS ?= 100000
FIRST ?= 0

# Servers are often installed where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/bin:/usr/local/sbin:/usr/sbin:/opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin
export PYTHON

python = .venv/bin/python
sanitized = build/sanitize

.PHONY: help demo example test unit lint bench bench-whole sanitize fuzz simulate soak conformance behaviours wheel clean setup \
	memcached
.DEFAULT_GOAL = help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: setup ## show sessions outliving a node and a worker; DEMO_ARGS=--once ends after the story
	@.ci/prepare memcached || true
	@$(python) -m msm_fast demo $(DEMO_ARGS)

example: setup ## open a shop to try: EXAMPLE=flask, django or fastapi, "flask --sticky" for sticky sessions
	@[ -n "$$MSM_FAST_NODES" ] || .ci/prepare memcached
	@$(python) -m examples $(EXAMPLE)

test: lint memcached ## the whole test suite, after lint
	$(python) -m pytest $(TEST_ARGS)

unit: setup ## the tests that need neither memcached nor minutes
	$(python) -m pytest -m "not slow and not memcached" $(TEST_ARGS)

lint: setup ## ruff, cython-lint, mypy --strict, and the stubs of the compiled core against the modules
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint msm_fast
	$(python) -m mypy --python-version 3.10
	$(python) -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-disjoint-bases msm_fast._core \
		msm_fast.drivers.exchange msm_fast.drivers.idle_connections msm_fast.drivers.pipeline \
		msm_fast.engine.as_usual msm_fast.engine.copies \
		msm_fast.engine.essentials msm_fast.engine.usual_loading msm_fast.engine.usual_saving \
		msm_fast.engine.versions

bench: setup memcached ## the benchmarks, with their rivals beside them; writes bench/report.md unless BENCH_ARGS choose
	@.ci/prepare bench
	$(python) -m pytest bench -o python_files='bench_*.py' --benchmark-only --benchmark-quiet -q \
		$(or $(BENCH_ARGS),--report)

bench-whole: setup memcached ## whole requests of web servers under load, a quarter of an hour; writes bench/whole_requests.md
	@.ci/prepare bench wrk
	$(python) -m bench.whole_requests $(or $(BENCH_ARGS),--report)

# A copy of the tree, so that the sanitizers' modules never stand in for the release build's. Linux with gcc.
sanitize: setup ## unit and property tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@[ "$$(uname)" = Linux ] && command -v gcc >/dev/null || { echo "make sanitize needs Linux and gcc."; exit 1; }
	@mkdir -p $(sanitized)
	@rm -rf $(sanitized)/tests $(sanitized)/src_c
	@tar -cf - --exclude='*.so' --exclude='msm_fast/*/*.c' --exclude=__pycache__ \
		pyproject.toml setup.py msm_fast src_c tests | tar -xf - -C $(sanitized)
	cd $(sanitized) && CC=gcc MSM_FAST_BUILD=sanitize $(CURDIR)/$(python) setup.py -q build_ext --inplace
	cd $(sanitized) && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
		PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(CURDIR)/$(python) -m pytest tests/unit tests/property -m "not slow and not memcached" $(TEST_ARGS)

fuzz: setup ## libFuzzer on each C kernel for SECONDS=60, with the same sanitizers; FUZZ_ARGS="wire" is one kernel
	@.ci/prepare clang
	$(python) -m tests.fuzz --seconds $(SECONDS) $(FUZZ_ARGS)

simulate: setup ## SEEDS=100000 schedules of faults over a simulated cluster, from seed FIRST=0
	$(python) -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

soak: setup memcached ## several workers for MINUTES=10 while something breaks every few seconds
	$(python) -m tests.soak --minutes $(MINUTES) $(SOAK_ARGS)

conformance: setup memcached ## the frameworks' own suites, from PyPI, with our sessions; writes docs/conformance.md
	$(python) -m tests.suites

behaviours: setup memcached ## what users may expect, shown by tests of each framework; writes docs/behaviours.md
	$(python) -m tests.behaviours

wheel: setup ## a wheel of this tree, in dist/
	$(python) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove everything that was made
	rm -rf .venv build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	rm -f msm_fast/*/*.c msm_fast/*/*.so
	find msm_fast tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@.ci/prepare python

memcached:
	@.ci/prepare memcached
