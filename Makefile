# make figures      draw the figures that are stale     make check        format, lint, types and the fast tests
# make derivations  make the pages that are stale       make test         all of it, and the slow tests (8 min)
# make networks     train what is missing (hours)      make test-oldest  tests with the oldest versions allowed
# make pictures     copy figures for the README         make benchmarks   speed, and theory against simulations
# make docs         build the site into build/docs      make lock         renew requirements.lock
# make clean        remove the figures and the site
PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
FIGURES := $(patsubst figures/%.py,figures/out/%.md,$(wildcard figures/*.py))
PAGES := $(patsubst %.py,%.md,$(filter-out derivations/page.py,$(wildcard derivations/*.py)))
BENCHMARKS := $(wildcard benchmarks/*.py)
PICTURES := $(wildcard figures/readme/*.png)
TWO := --numprocesses 2 --dist loadfile
STALE = $(RUN) -m toymodel.provenance stale
MAKEFLAGS += --jobs=2

.PHONY: help figures check lint fast suite test test-oldest derivations benchmarks networks docs pictures lock clean FORCE

figures: $(ENV)/ready
	@stale=$$($(STALE) $(FIGURES)) || exit 1; echo "$$(echo $$stale | wc -w) of $(words $(FIGURES)) figures are stale"; \
	test -z "$$stale" || $(MAKE) --no-print-directory $$(printf 'draw-%s ' $$stale)
	@echo "$(words $(FIGURES)) figures are in figures/out"

derivations: $(ENV)/ready
	@stale=$$($(STALE) $(PAGES)) || exit 1; echo "$$(echo $$stale | wc -w) of $(words $(PAGES)) pages are stale"; \
	test -z "$$stale" || $(MAKE) --no-print-directory $$(printf 'make-%s ' $$stale)
	@echo "$(words $(PAGES)) pages are in derivations"

help:
	@sed -n '/^PYTHON/q; s/^# //p' Makefile

# The last line of figures/out/NAME.md and of derivations/NAME.md says what it was made from, with a fingerprint of code
# without comments: `python -m toymodel.provenance stale` compares. These rules make what they are asked for in any case,
draw-figures/out/%.md: figures/%.py
	@echo "drawing $*"
	@$(RUN) $<

make-derivations/%.md: derivations/%.py
	@$(RUN) $<

# and this one draws one figure if it is stale.
figures/out/%.png: figures/%.py FORCE | $(ENV)/ready
	@test -z "$$($(STALE) figures/out/$*.md)" || { echo "drawing $*"; $(RUN) $<; }

$(ENV)/ready: requirements.lock pyproject.toml
	@echo "installing into $(ENV) (about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit("toymodel needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(RUN) || $(PYTHON) -m venv $(ENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lint: $(ENV)/ready
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/ruff check .
	$(ENV)/bin/basedpyright
	$(ENV)/bin/lint-imports --no-cache

# Types take as long as the fast tests, so the two run side by side; and beside all tests, whose progress is shown.
check: $(ENV)/ready
	@$(MAKE) --no-print-directory --output-sync=target lint fast

test: $(ENV)/ready
	@$(MAKE) --no-print-directory lint suite

fast: $(ENV)/ready
	$(RUN) -m pytest $(TWO) -m "not slow"

suite: $(ENV)/ready
	$(RUN) -m pytest $(TWO)

# The oldest versions that pyproject.toml allows, in an environment of its own.
test-oldest: $(ENV)/ready
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@$(RUN) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print("\n".join(d.replace(">=", "==") for d in p["dependencies"] + p["optional-dependencies"]["dev"]))' > .venv-oldest/oldest.txt
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-oldest/oldest.txt
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	.venv-oldest/bin/python -m pytest $(TWO)

benchmarks: $(ENV)/ready
	@for script in $(BENCHMARKS); do echo "== $$script"; $(RUN) $$script || exit 1; done

networks: $(ENV)/ready
	$(ENV)/bin/toymodel train --all

# The site: pages, executed notebooks, derivations, reference, and those figures that are drawn.
docs: $(ENV)/ready
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "the site is in build/docs/index.html"

# The pictures that the README shows.
pictures: $(PICTURES:figures/readme/%=figures/out/%)
	cp $^ figures/readme/

lock: $(ENV)/ready
	$(ENV)/bin/pip-compile --quiet --strip-extras --extra dev --extra docs --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --no-header --no-annotate --upgrade --output-file requirements.lock pyproject.toml

clean:
	rm -rf figures/out build/docs
