# Everything happens in .venv and in the cache folder of teachwhy. Nothing asks for root.
# Plain enough for GNU make 3.81 and any POSIX shell.
# Another Python: make demo PYTHON=/path/to/python

.DEFAULT_GOAL := help
.PHONY: help demo test check clean

PYTHON =
BIN    = .venv/bin
PIP    = $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
PINS   = pyproject.toml constraints.txt

help:
	@echo "make demo    set up, run both studies and the rules on the built-in model, make one page"
	@echo "make test    set up, fetch the built-in model, check the code, run the tests"
	@echo "make check   set up, check the code alone (ruff, mypy)"
	@echo "make clean   remove .venv and tool caches; runs/ and the built-in model stay"

# Exit code 3: the study was run, and its answer is withheld.
demo: .venv/train.stamp
	@echo "==> demo 1/5: built-in model (once; 93 MB to fetch, about 1 minute)"
	@$(BIN)/teachwhy models get builtin
	@echo "==> demo 2/5: study of ambiguous choices"
	@$(BIN)/teachwhy study run ambiguity --yes --output runs/ambiguity || [ $$? -eq 3 ]
	@echo "==> demo 3/5: study of honeypots"
	@$(BIN)/teachwhy study run honeypots --yes --output runs/honeypots || [ $$? -eq 3 ]
	@echo "==> demo 4/5: rules: what a run would find, and what the built-in model prefers (1 to 2 minutes)"
	@$(BIN)/teachwhy rules simulate --bare 0.04 --reason 0.015 --sessions 780 --output runs/simulate.json
	@$(BIN)/teachwhy rules prefer builtin --model builtin --wordings 1 --histories 1 --output runs/preference
	@echo "==> demo 5/5: one page from all"
	@$(BIN)/teachwhy report runs/ambiguity runs/honeypots runs/preference runs/simulate.json --output runs/demo.html
	@echo "The page is $(CURDIR)/runs/demo.html"

test: check
	@echo "==> test 1/2: built-in model (once; 93 MB to fetch, about 1 minute)"
	@$(BIN)/teachwhy models get builtin
	@echo "==> test 2/2: pytest (minutes)"
	@TEACHWHY_REQUIRE="$$TEACHWHY_REQUIRE builtin" $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: .venv/dev.stamp
	@echo "==> check 1/2: ruff (seconds)"
	@$(BIN)/ruff check .
	@echo "==> check 2/2: mypy (about 1 minute the first time)"
	@$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The interpreter: 3.11 first, since the versions in constraints.txt were checked with it. One that cannot make an
# environment (some systems keep ensurepip apart) is passed over.
.venv/python.stamp:
	@echo "==> set-up 1/3: Python environment in .venv (seconds)"
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
	  if "$$python" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then \
	    "$$python" -m venv .venv || exit 1; \
	    .venv/bin/python --version > $@; \
	    exit 0; \
	  fi; \
	done; \
	echo "teachwhy needs Python 3.11 or newer with its venv module, and none was found." >&2; \
	echo "Install one, then type make again:" >&2; \
	echo "  Debian, Ubuntu:  sudo apt install python3.11-venv    (or a newer python3.N-venv)" >&2; \
	echo "  Fedora:          sudo dnf install python3.11" >&2; \
	echo "  macOS:           brew install python@3.11" >&2; \
	echo "Or name one: make PYTHON=/path/to/python" >&2; \
	exit 1

# torch by itself and pinned: a torch without a pin may be a newer one that brings gigabytes of CUDA libraries.
.venv/torch.stamp: .venv/python.stamp $(PINS)
	@echo "==> set-up 2/3: torch (about 1 minute; why it may be gigabytes on Linux: CONTRIBUTING.md)"
	@$(PIP) torch==2.13.0
	@touch $@

.venv/train.stamp: .venv/torch.stamp $(PINS)
	@echo "==> set-up 3/3: teachwhy and its libraries (1 to 2 minutes; 2 GB of disk in all)"
	@$(PIP) -e ".[train]"
	@touch $@

.venv/dev.stamp: .venv/torch.stamp $(PINS)
	@echo "==> set-up 3/3: teachwhy, its libraries and the test tools (1 to 3 minutes; 2 GB of disk in all)"
	@$(PIP) -e ".[train,dev]"
	@touch .venv/train.stamp $@
