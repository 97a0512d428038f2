# make demo | test | test-fast | lint; PYTHON chooses the interpreter (3.11 or newer) for the first of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock
# Each process takes what lies together, so that expensive fixtures are made once, and the rest of
# the other's when it has done its own.
PYTEST := DFC_REQUIRE_EXTRAS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
PROJECT := setup.cfg pyproject.toml requirements.lock

.PHONY: demo test test-fast lint lock

demo: $(VENV)/.installed
	$(BIN)/dfc align examples/astronaut.jpg --out out
	@echo "Look at out/astronaut_overlay.png. Then, with a photograph of yours:"
	@echo "    $(BIN)/dfc align PHOTO.jpg --out out"

test: $(VENV)/.installed-dev
	$(PYTEST)

# What does not start processes, train or compile for long; to be run after every change.
test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# After a change of the dependencies in setup.cfg.
lock: | $(BIN)/pip
	$(INSTALL) uv
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --all-extras setup.cfg \
		-o requirements.lock

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# The stamps record an installation that went through; pip is asked again only when a file that
# says what to install has changed.
$(VENV)/.installed: $(PROJECT) | $(BIN)/pip
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(PROJECT) | $(BIN)/pip
	$(INSTALL) -e ".[train,tfds,video,tables,completion,onnx,export,dev]"
	touch $@ $(VENV)/.installed
