# Commands for contributors, in the environment that README's test command makes.
BIN := .venv/bin

.PHONY: test slow lint docs wheel

test:
	$(BIN)/python -m pytest -n 2

slow:
	$(BIN)/python -m pytest -n 2 -m slow

lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs:
	$(BIN)/pip install -q -e ".[docs]"
	$(BIN)/mkdocs build --strict

wheel:
	.ci/wheel
