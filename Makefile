# `make demo` and `make test` are all the set-up there is: each installs what it needs into .venv,
# on a machine with make and Python 3.11 or newer. PYTHON=/path/to/python chooses another one.

CANDIDATES = $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install -qq --constraint constraints.txt

# Each is touched when an installation is complete, and older than the files it depends on when
# it has to be done again.
INSTALLED = .venv/ckgrow-installed
TEST_TOOLS = .venv/test-tools-installed

.PHONY: demo test test-oldest test-full teachers types clean

demo: $(INSTALLED)  ## grow a shipped teacher
	@mkdir -p grown && rm -f grown/resnet.safetensors
	$(BIN)/ckgrow apply specs/teachers/resnet.safetensors specs/widen_resnet.yaml \
		-o grown/resnet.safetensors

test: $(TEST_TOOLS) types  ## linter, type checker, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

test-oldest:  ## the tests with the oldest versions of what ckgrow stands on
	@test -x .venv-oldest/bin/pytest || { $(BIN)/python -m venv .venv-oldest && \
		.venv-oldest/bin/python -m pip install -qq --upgrade "pip>=25.1" && \
		.venv-oldest/bin/python -m pip install -qq -c constraints-oldest.txt -e . --group dev && \
		.venv-oldest/bin/python -m pip install -qq -c constraints.txt --no-deps torchvision timm; }
	.venv-oldest/bin/pytest -n 2

test-full: $(TEST_TOOLS)  ## every test in its long form: larger samples, larger networks
	@bash -o pipefail -c '$(BIN)/pytest -n 2 --full --no-header -q | \
		tee benchmarks/results/test-full-$(shell date +%F).txt'

teachers: $(TEST_TOOLS)  ## train specs/teachers/*.safetensors anew
	$(BIN)/python specs/teachers/train.py

# adapters/ is installed as ckgrow.adapters. The type checker finds it there through links.
types:
	@mkdir -p .types/ckgrow
	@cd .types/ckgrow && ln -sfn ../../ckgrow/* ../../adapters . && rm -f __pycache__
	@find -L .types/ckgrow -maxdepth 1 -type l -exec rm {} +

clean:  ## remove everything that these targets made, .venv included
	rm -rf .venv .venv-oldest .types grown build ckgrow.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ckgrow adapters tests specs -name __pycache__ -exec rm -rf {} +

$(BIN)/python:
	@for python in $(CANDIDATES); do \
		"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null || continue; \
		echo "making .venv with $$("$$python" --version)"; \
		exec "$$python" -m venv --clear .venv; \
	done; \
	echo "none of these is Python 3.11 or newer with the venv module: $(CANDIDATES)" >&2; \
	echo "install one (Debian and Ubuntu: python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing ckgrow into .venv; PyTorch is large, the first time takes some minutes"
	@$(PIP) install -qq --upgrade "pip>=25.1"
	@$(INSTALL) --editable .
	@touch $@

# Models of torchvision and timm are what the tests compare with; their dependencies are not needed.
$(TEST_TOOLS): $(INSTALLED)
	@echo "installing the tools of the tests into .venv"
	@$(INSTALL) --group dev
	@$(INSTALL) --no-deps torchvision timm
	@touch $@
