# make demo    from a bare clone to a ranking of the assays, in a few minutes on a laptop
# make test    the tests               make check   lint, format, types, the house
# make trials  every trial at full size             make parity  against Keras and PyTorch
# make torture faults injected into every command, an hour
# make docs    the site, in build/site, with every command of its pages run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO := demo
unexport PYTHONDONTWRITEBYTECODE  # what one process compiled serves those that it starts

.PHONY: demo test check format trials torture docs parity benchmark clean

# A stamp is newer than what it was installed from; each extra has its own.
$(VENV)/installed-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "epi2expr_jax needs Python 3.11 or newer; give it as make PYTHON=python3.12"; exit 1; }; \
	  $(PYTHON) -m venv $(VENV); }
	@echo "installing ($*) into $(VENV) ..."
	@$(PIP) --editable '.$(if $(filter-out base,$*),[$*])'
	@touch $@

demo: $(VENV)/installed-base
	$(BIN)/python -m experiments.demo --out=$(DEMO)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
	  --no-loadscope-reorder -m "not peers"

check: $(VENV)/installed-lint $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

trials: $(VENV)/installed-test $(VENV)/installed-workflow
	EPI2EXPR_TRIALS=full $(BIN)/python -m pytest -m trial

torture: $(VENV)/installed-test $(VENV)/installed-convert
	EPI2EXPR_TORTURE=full $(BIN)/python -m pytest -q tests/torture/test_fuzz.py
	$(BIN)/python -m tests.torture

docs: demo $(VENV)/installed-test $(VENV)/installed-workflow $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	EPI2EXPR_TRIALS=full $(BIN)/python -m pytest -m trial tests/test_docs.py

# chromoformer declares a dependency (einops) that nothing in it imports.
parity: $(VENV)/installed-dev
	@$(PIP) --no-deps chromoformer==1.1.3
	EPI2EXPR_TRIALS=full $(BIN)/python -m pytest -m peers

benchmark: $(VENV)/installed-dev
	$(BIN)/python -m experiments.benchmark --what=windows
	$(BIN)/python -m experiments.benchmark --what=cnn
	@$(PIP) --no-deps chromoformer==1.1.3
	$(BIN)/python -m experiments.benchmark --what=chromoformer

clean:
	rm -rf $(VENV) $(DEMO) *.egg-info .pytest_cache .ruff_cache
