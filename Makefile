# Everything starts from `python3`: each target first has tools/bootstrap.py set up what it needs, which takes
# a moment when nothing has changed.

PYTHON ?= python3
SET_UP = $(PYTHON) tools/bootstrap.py
BIN = .venv/bin
DEVELOPMENT = dev,dashboard,llm,fit,sweep,cluster,tune

.DEFAULT_GOAL := help
.PHONY: help demo dashboard test oracle fuzz browser build emulation lint types wheel wheels clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: ## predict and measure Llama-3.2-3B on this machine; results in out/demo/
	@$(SET_UP) --extras dashboard
	@$(BIN)/smesim demo

dashboard: ## plans, timelines and errors in a browser, on this machine only; PORT=8501
	@$(SET_UP) --extras dashboard
	@$(BIN)/smesim dashboard $(if $(PORT),--port $(PORT))

test: build ## lint, check types, run the tests
	@$(MAKE) --no-print-directory -j2 lint types emulation
	$(BIN)/python -m pytest -rs -n 2 --dist loadfile --no-loadscope-reorder

oracle: emulation ## hold whole models against Hugging Face transformers (torch), and vocabularies against llama.cpp's
	@$(SET_UP) --extras $(DEVELOPMENT),oracle --trained --vocabularies
	SMESIM_ORACLE=1 $(BIN)/python -m pytest -rs tests/oracles tests/workload/test_tokenizer.py tests/emulated/test_emulated_session.py

fuzz: build ## a minute of damaged model files
	$(BIN)/python -m pytest -p tests.fuzz tests/workload/test_stored_files.py -k damage

browser: build ## the dashboard in chromium (Debian's package); pictures of its pages in out/dashboard/
	@$(SET_UP) --extras $(DEVELOPMENT),browser
	SMESIM_BROWSER=1 $(BIN)/python -m pytest -rs tests/dashboards/test_dashboard_browser.py

build: ## .venv with smesim, everything to work on it, and the native kernels
	@$(SET_UP) --extras $(DEVELOPMENT) --trained

emulation: build ## an emulated processor with SME, for 'smesim emulate' and the tests that need one
	@$(BIN)/python tools/emulation.py

lint: build ## ruff
	$(BIN)/ruff check

types: build ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy --strict tools/bootstrap.py tools/cycles.py tools/emulation.py tools/wheels.py

wheel: ## dist/*.whl, for every Python from 3.11 on
	@$(SET_UP) --wheel

wheels: build ## dist/*.whl for Linux on Arm, with either C library, and for Macs
	@$(BIN)/python tools/wheels.py

clean: ## remove what was built and measured; .venv and the downloads stay
	rm -rf build dist out smesim.egg-info smesim/exec/_native.* smesim/sim/_engine.*
