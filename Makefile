# make demo | test | lint; PYTHON chooses the interpreter (3.11 or newer) for the first of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock
PROJECT := setup.cfg pyproject.toml requirements.lock

.PHONY: demo test lint lock

demo: $(VENV)/.installed
	$(BIN)/dfc align examples/astronaut.jpg --out out
	@echo "Look at out/astronaut_overlay.png. Then, with a photograph of yours:"
	@echo "    $(BIN)/dfc align PHOTO.jpg --out out"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

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
	$(INSTALL) -e ".[train,dev]"
	touch $@ $(VENV)/.installed
