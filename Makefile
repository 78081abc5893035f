# Two commands for a fresh machine: `make demo` and `make test`.
# Another Python: PYTHON=python3.13 make test
# As CI does it, with fixed versions: LANE=oldest make test, LANE=newest make test

LANE ?=
COMMA := ,
PYTHON_oldest := python3.11
PYTHON_newest := python3.13
PYTHON ?= $(or $(PYTHON_$(LANE)),python3)
ifneq ($(filter-out oldest newest,$(LANE)),)
  $(error LANE must be oldest or newest, or not given, got $(LANE))
endif

# The first that runs, and its version. Where a version of pyenv is not switched on, its
# `python3.13` is on the path and fails; the real one lies among pyenv's versions.
BEHIND_PYENV := $(wildcard $(shell pyenv root 2>/dev/null)/versions/$(PYTHON:python%=%).*/bin/python)
FOUND := $(shell for python in $(PYTHON) $(BEHIND_PYENV); do \
  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
  && echo $$python $$version && break; done)
BASE := $(or $(firstword $(FOUND)),$(PYTHON))
VERSION := $(lastword $(FOUND))
VENV ?= .venv/$(if $(LANE),$(LANE)-)$(or $(VERSION),none)
RUN := $(VENV)/bin/python
EXTRAS := examples,cifar,report,test,dev$(if $(filter oldest,$(LANE)),,$(COMMA)docs)
PINS := $(if $(LANE),constraints/$(LANE).txt)
STAMP := $(VENV)/installed-$(shell cat setup.cfg pyproject.toml $(PINS) | cksum | cut -d' ' -f1)
SOURCES := population mutators examples benchmarks tests docs/site_hooks.py
# The floors of setup.cfg as the only versions: the oldest lane installs these.
FLOORS := sed -n 's/^    \([A-Za-z0-9_-]*\)>=\([0-9.]*\)$$/\1==\2/p' setup.cfg
CONSTRAIN := $(PINS:%=--constraint %) $(if $(filter oldest,$(LANE)),--constraint $(VENV)/floors.txt)
# Tests run in so many processes. One that has nothing left takes the last of another's,
# so most tests of a file, and what its fixtures make, stay in one process.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist worksteal
# XLA compiles in half the time when it optimizes little; the newest lane does as users do.
QUICK := $(if $(filter newest,$(LANE)),,JAX_DISABLE_MOST_OPTIMIZATIONS=1)
# The oldest lane measures coverage too, which takes half as long again.
WHOLE := $(if $(filter oldest,$(LANE)),--cov --cov-report=term:skip-covered --cov-fail-under=90)
# What the newest lane runs, in at most ten minutes: see CONTRIBUTING.md.
PART := tests/test_site.py tests/test_site_in_browser.py tests/engines tests/journals tests/params tests/report tests/space tests/testing \
  tests/test_codec.py tests/test_controller.py tests/test_crash.py tests/test_faults.py \
  tests/test_hyperparams.py tests/test_sqlite_journal.py tests/test_worker.py
PREPARE := $(if $(filter true,$(CI)),$(if $(filter newest,$(LANE)),,.venv-prepare/installed .venv-recipes/installed))

.PHONY: demo test check docs format soak bench bench-peers pins clean
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(RUN) -m examples.simple_cnn.train_threads --log_dir runs/demo

test: $(STAMP) $(PREPARE)
	$(QUICK) $(RUN) -m pytest -q -m "not slow" $(PARALLEL) $(if $(filter newest,$(LANE)),$(PART),$(WHOLE))

check: $(STAMP)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m mypy

# A warning is an error. The page to begin with is site/index.html.
docs: $(STAMP)
	$(RUN) -m mkdocs build

format: $(STAMP)
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

soak: $(STAMP)
	$(RUN) -m pytest -q -m slow

bench: $(STAMP)
	$(RUN) -m benchmarks.speed.ticks
	$(RUN) -m benchmarks.speed.decisions
	$(RUN) -m benchmarks.speed.processes
	$(RUN) -m benchmarks.speed.saving
	$(RUN) -m benchmarks.speed.reading
	$(RUN) -m benchmarks.speed.population
	$(RUN) -m benchmarks.speed.cold
	$(RUN) -m benchmarks.quality.toy
	$(RUN) -m benchmarks.quality.complex_cnn
	$(RUN) -m benchmarks.quality.training
	$(if $(ENDURO),$(RUN) -m benchmarks.quality.policies --enduro $(ENDURO))
	$(RUN) -m benchmarks.render

# The benchmarks that have other libraries in their tables: Ray Tune and Optuna are for
# these alone, and have a place of their own.
bench-peers: .venv-peers/installed
	.venv-peers/bin/python -m benchmarks.speed.population --peers
	.venv-peers/bin/python -m benchmarks.durability.power_cuts --peers
	.venv-peers/bin/python -m benchmarks.render

.venv-peers/installed: setup.cfg
	$(BASE) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable '.[examples]' 'ray[tune]' optuna
	touch $@

# Writes constraints/newest.txt anew, with what pip finds today.
pins:
	$(BASE) -m venv --clear .venv/pins
	.venv/pins/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	grep '^#' constraints/newest.txt > .venv/pins/newest.txt
	.venv/pins/bin/python -m pip freeze --exclude-editable >> .venv/pins/newest.txt
	cp .venv/pins/newest.txt constraints/newest.txt

clean:
	rm -rf .venv .venv-prepare .venv-recipes .venv-peers runs site

$(STAMP):
	@$(BASE) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Python 3.11 or newer is needed; $(PYTHON) is $(or $(VERSION),not there).'; \
	  echo 'Install one (Debian: apt-get install python3 python3-venv), or name'; \
	  echo 'another: PYTHON=python3.13 make ...'; exit 1; }
	@$(BASE) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo '$(PYTHON) cannot make virtual environments: venv or ensurepip is missing.'; \
	  echo 'Debian and Ubuntu: apt-get install python$(VERSION)-venv'; exit 1; }
	$(BASE) -m venv $(VENV)
	$(if $(filter oldest,$(LANE)),$(FLOORS) > $(VENV)/floors.txt)
	$(RUN) -m pip install --quiet $(CONSTRAIN) --editable '.[$(EXTRAS)]'
	touch $@

# Loggers of other projects want other versions than the tests.
.venv-recipes/installed: $(STAMP)
	$(BASE) -m venv .venv-recipes
	.venv-recipes/bin/python -m pip install --quiet '.[loggers]'
	touch $@

# Preparing CIFAR-10 needs TensorFlow, which nothing else may need: it has its own place.
.venv-prepare/installed: $(STAMP)
	$(BASE) -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install --quiet '.[cifar-prepare]'
	touch $@
