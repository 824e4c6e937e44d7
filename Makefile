# `make demo` and `make test` are all that a newcomer needs: each does everything that has to be done before.

PYTHON_ENV := .venv/bin/python
AS_ROOT := packaging/as_root.sh
# Root leaves nothing behind in a checkout that is a user's.
PYTEST_ROOT := $(PYTHON_ENV) -m pytest -p no:cacheprovider
# Unit tests wait as long as they work: four workers on two CPUs. Whoever has none left takes of another's.
UNIT := -q -n 4 --dist worksteal tests/unit
# Each test has daemons of its own, and finds nothing of another one: two files at a time, each by one worker, as
# its tests share a daemon. What measures the machine is `alone`, and comes afterwards.
TOGETHER := -q -n 2 --dist loadfile -m "not alone" --ignore=tests/soak --ignore=tests/unit
ALONE := -m alone --ignore=tests/soak --ignore=tests/unit
BENCH_EXTRA := .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'

.PHONY: help setup demo quick test test-systemd test-vm soak bench bench-compare flamegraph lint
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is missing and make .venv (seconds the second time)
	@packaging/setup.sh

demo: setup ## start a daemon, run plugins over a plan, stop hostile ones (under a minute)
	@$(AS_ROOT) "the daemon makes namespaces and control groups for its jails" $(PYTHON_ENV) client/examples/demo.py

quick: lint ## linters and unit tests; no root, under a minute
	PYTHONDONTWRITEBYTECODE= $(PYTHON_ENV) -m pytest -m "not root and not slow" --hypothesis-profile=quick $(UNIT)

test: lint ## everything but the soak; needs root, under a quarter of an hour
	@$(AS_ROOT) "the tests run as they do in CI" $(PYTEST_ROOT) $(UNIT)
	@$(AS_ROOT) "the tests make real jails and attack them" $(PYTEST_ROOT) $(TOGETHER)
	@$(AS_ROOT) "so do these, one after the other" $(PYTEST_ROOT) $(ALONE)

test-systemd: setup ## install it in a container with systemd and drive it as an operator (needs root, minutes)
	@$(AS_ROOT) "the tests boot a container over a copy of this machine's files" $(PYTEST_ROOT) tests/systemd

test-vm: setup ## the unified cgroup hierarchy: boot a Debian in software emulation, test there (needs root, minutes; TESTS=... chooses)
	@$(AS_ROOT) "a virtual machine is made whose files belong to its own root" $(PYTHON_ENV) -m tests.vm $(TESTS)

soak: setup ## the same things for hours: ten million inputs for the parsers, ten thousand runs for the daemon
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[soak]'
	$(PYTHON_ENV) -m tests.soak.fuzz.run $(FUZZ)
	@$(AS_ROOT) "the soak makes real jails" $(PYTEST_ROOT) -s tests/soak

bench: setup ## how long a run takes, beside other jails and none, and much else (under five minutes; BENCH=... are options)
	@$(BENCH_EXTRA)
	@$(AS_ROOT) "the daemon makes real jails" $(PYTHON_ENV) tests/bench/bench.py $(BENCH)

bench-compare: setup ## two reports of make bench BENCH='--output FILE': OLD=a.json NEW=b.json
	@PYTHONPATH=. $(PYTHON_ENV) -m tests.bench.compare "$(OLD)" "$(NEW)"

flamegraph: setup ## where the front spends its time under load: flamegraph.svg, and the functions at the top
	@$(BENCH_EXTRA)
	@$(AS_ROOT) "the daemon makes real jails, and py-spy looks into it" $(PYTHON_ENV) tests/bench/flamegraph.py

lint: setup ## ruff, mypy, import contracts
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
