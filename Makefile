# `make help` lists what there is. Everything runs in .venv, which is made from the exact pins in requirements.txt.

PYTHON ?= $(shell command -v python3.11 || echo python3)
PY := .venv/bin/python

PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4
OF_CHAPTERS := tests/chapters/test_chapters.py tests/chapters/test_other_weights.py tests/book/test_html.py
OF_RECORDS := tests/unit/test_cli.py::test_the_shipped_records_agree_with_the_shipped_weights

.PHONY: help setup reader book serve chapter notebooks check test baselines bench lint architecture clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:
	@$(PYTHON) tools/environment.py author

reader:
	@$(PYTHON) tools/environment.py reader

book: setup ## execute every chapter and build _build/html/index.html
	@$(PY) tools/build_book.py

serve: ## show the built book on http://localhost:8000
	@$(PYTHON) -m http.server --directory _build/html 8000

chapter: setup ## CHAPTER=stem: build one chapter, into _build/chapters/
	@$(PY) tools/build_book.py --chapter $(CHAPTER)

notebooks: setup ## regenerate notebooks/ from book/, for Colab
	@$(PY) tools/make_notebooks.py

# One thread a process: processes side by side use the cores better than threads that wait for each other. What one
# process does, a chapter or a file, says tests/conftest.py.
check: setup ## the quick tests: units, theory, sources; no chapter is executed, no record recomputed
	@$(PYTEST) $(OF_CHAPTERS:%=--ignore %) --deselect $(OF_RECORDS)

test: reader ## all tests; the numbers are those of the built book's executions if it is current, else of the notebooks
	@$(PYTEST)
	@echo 'All tests passed. The recorded numbers are in tests/chapters/baselines/.'

baselines: reader ## CHAPTER=stem: rewrite a chapter's recorded numbers, print what changed
	@test -n "$(CHAPTER)" || { echo 'name a chapter: make baselines CHAPTER=peak'; exit 2; }
	@$(PY) tools/make_notebooks.py
	@OMP_NUM_THREADS=1 $(PY) tools/baselines.py $(CHAPTER)
	@$(PY) tools/make_notebooks.py

bench: setup ## time the package side by side with others, write benchmarks/RESULTS.md
	@$(PY) benchmarks/run.py

lint: setup ## style, layout, types, who imports whom, the chapters' cells: ruff, mypy, import-linter
	@$(PY) tools/lint.py

architecture: setup ## draw the picture in ARCHITECTURE.md anew, from the imports
	@$(PY) tools/architecture.py

clean: ## remove what was built; the environments stay
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache
