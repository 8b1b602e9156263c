# make figures      every figure that is stale          make test         all checks
# make derivations  rewrite the pages                   make test-oldest  tests with the oldest versions allowed
# make networks     train what is missing (hours)      make benchmarks   speed, and theory against simulations
# make pictures     copy figures for the README         make lock         renew requirements.lock
PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
FIGURES := $(foreach kind,md pdf svg png,$(patsubst figures/%.py,figures/out/%.$(kind),$(wildcard figures/*.py)))
PAGES := $(patsubst %.py,%.md,$(filter-out derivations/page.py,$(wildcard derivations/*.py)))
BENCHMARKS := $(wildcard benchmarks/*.py)
PICTURES := $(wildcard figures/readme/*.png)
TWO := --numprocesses 2 --dist loadfile
MAKEFLAGS += --jobs=2

.PHONY: help figures test test-oldest derivations benchmarks networks pictures lock clean
.DELETE_ON_ERROR:

figures: $(FIGURES)

help:
	@sed -n '/^PYTHON/q; s/^# //p' Makefile

# The Python files, data and style that a figure was made from are in figures/out/NAME.d, written when it was made.
figures/out/%.pdf figures/out/%.svg figures/out/%.png figures/out/%.md: figures/%.py | $(ENV)/ready
	@echo "drawing $*"
	@$(RUN) $<

-include $(wildcard figures/out/*.d)

$(ENV)/ready: requirements.lock pyproject.toml
	@echo "installing into $(ENV) (about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit("toymodel needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(RUN) || $(PYTHON) -m venv $(ENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test: $(ENV)/ready
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/ruff check .
	$(ENV)/bin/basedpyright
	$(ENV)/bin/lint-imports --no-cache
	$(RUN) -m pytest $(TWO)

# The oldest versions that pyproject.toml allows, in an environment of its own.
test-oldest: $(ENV)/ready
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@$(RUN) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print("\n".join(d.replace(">=", "==") for d in p["dependencies"] + p["optional-dependencies"]["dev"]))' > .venv-oldest/oldest.txt
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-oldest/oldest.txt
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	.venv-oldest/bin/python -m pytest $(TWO)

derivations: $(ENV)/ready
	@for script in $(PAGES:.md=.py); do $(RUN) $$script || exit 1; done

benchmarks: $(ENV)/ready
	@for script in $(BENCHMARKS); do echo "== $$script"; $(RUN) $$script || exit 1; done

networks: $(ENV)/ready
	$(ENV)/bin/toymodel train --all

# The pictures that the README shows.
pictures: $(PICTURES:figures/readme/%=figures/out/%)
	cp $^ figures/readme/

lock: $(ENV)/ready
	$(ENV)/bin/pip-compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --no-header --no-annotate --upgrade --output-file requirements.lock pyproject.toml

clean:
	rm -rf figures/out
