# Two commands for a fresh machine: `make demo` and `make test`.
# Another Python: PYTHON=python3.12 make test

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV ?= .venv/$(or $(VERSION),none)
RUN := $(VENV)/bin/python
EXTRAS := examples,cifar,test,dev
STAMP := $(VENV)/installed-$(shell cat setup.cfg pyproject.toml | cksum | cut -d' ' -f1)
SOURCES := population mutators examples benchmarks tests

.PHONY: demo test check format soak bench bench-peers clean
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(RUN) -m examples.simple_cnn.train_threads --log_dir runs/demo

test: $(STAMP) $(if $(filter true,$(CI)),.venv-prepare/installed)
	$(RUN) -m pytest -q -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=90

check: $(STAMP)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m mypy

format: $(STAMP)
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

soak: $(STAMP)
	$(RUN) -m pytest -q -m slow

bench: $(STAMP)
	$(RUN) -m benchmarks.speed.ticks
	$(RUN) -m benchmarks.speed.decisions
	$(RUN) -m benchmarks.speed.processes
	$(RUN) -m benchmarks.speed.saves
	$(RUN) -m benchmarks.speed.population
	$(RUN) -m benchmarks.quality.toy
	$(RUN) -m benchmarks.quality.complex_cnn
	$(RUN) -m benchmarks.render

# The same as `python -m benchmarks.speed.population`, with Ray Tune in the table: Ray is
# for this alone, and has a place of its own.
bench-peers: .venv-peers/installed
	.venv-peers/bin/python -m benchmarks.speed.population --peers
	.venv-peers/bin/python -m benchmarks.render

.venv-peers/installed: setup.cfg
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable '.[examples]' 'ray[tune]'
	touch $@

clean:
	rm -rf .venv .venv-prepare .venv-peers runs

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Python 3.11 or newer is needed; $(PYTHON) is $(or $(VERSION),not there).'; \
	  echo 'Install one (Debian: apt-get install python3 python3-venv), or name'; \
	  echo 'another: PYTHON=python3.12 make ...'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo '$(PYTHON) cannot make virtual environments: venv or ensurepip is missing.'; \
	  echo 'Debian and Ubuntu: apt-get install python$(VERSION)-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

# Preparing CIFAR-10 needs TensorFlow, which nothing else may need: it has its own place.
.venv-prepare/installed: $(STAMP)
	$(PYTHON) -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install --quiet '.[cifar-prepare]'
	touch $@
