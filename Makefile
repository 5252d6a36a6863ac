PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test pretrained browser model lint docs clean

MODEL ?= smalltown

# What is compiled once is kept: the tests start some hundred processes that import all of it.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/demo-installed
	@mkdir -p out
	$(BIN)/interp report --model $(MODEL) --out out/report.html --force

test: $(VENV)/test-installed pretrained
	$(BIN)/python -m pytest

pretrained: $(VENV)/demo-installed
	@$(BIN)/interp get smollm2-135m || echo "Warning: smollm2-135m could not be had; the tests on it will be skipped."

# Chromium by the system's packages where that may be done, else the Chrome that plotly fetches.
browser: $(VENV)/test-installed
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core fonts-noto-color-emoji >/dev/null; \
	else $(BIN)/plotly_get_chrome -y; fi
	@$(BIN)/python -c "from analyses.plots.browser import browser; print(browser())"

lint: $(VENV)/test-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

model: $(VENV)/demo-installed
	$(BIN)/python -m interp.zoo.training

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

$(VENV)/test-installed: $(VENV)/demo-installed
	$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/docs-installed: $(VENV)/demo-installed
	$(INSTALL) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) out dist
