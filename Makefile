# Everything runs in .venv, which `make setup` builds from requirements.lock with uv. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON3 ?= python3
# a uv that starts: pyenv leaves a shim of that name where another of its Pythons has one
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := $(BIN)/pytest
PNEUMO_REAL_DATA ?= ../shared/data
JOBS ?= 2

.PHONY: help setup dist notices data demo real-model pneumoniamnist test test-slow test-all lint format bench docs deploy-plan serve lock schema clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install Python 3.12 packages into .venv

.uv/bin/uv:
	$(PYTHON3) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): requirements.lock pyproject.toml | $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --seed --allow-existing .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

data: setup ## The versioned data set, drawn from its seed: what data.dvc tracks
	$(BIN)/pneumo data phantom phantoms --images 240 --seed 0 --size 128
	$(BIN)/pneumo data import phantoms --size 128
	$(BIN)/dvc add --quiet data
	git diff --exit-code --stat data.dvc

demo: setup ## The whole loop on synthetic images, in demo/
	$(BIN)/pneumo demo

real-model: setup ## The recommended model from the real X-rays, in real/: bundle, report, stress test
	$(BIN)/pneumo data import $(PNEUMO_REAL_DATA)/chest_xray_224_train.tar --fractions 0.8,0.15,0.05 --out real/data
	$(BIN)/pneumo train ludwig_configs/recommended.yaml --data real/data --runs-dir real/runs
	$(BIN)/pneumo evaluate latest --runs-dir real/runs --stress
	$(BIN)/pneumo export latest --runs-dir real/runs --out real/bundle

pneumoniamnist: setup ## A model of PneumoniaMNIST's 28-pixel images, in pneumoniamnist/: bundle, report, stress test
	$(BIN)/pneumo data import $(PNEUMO_REAL_DATA)/pneumoniamnist_28_trainval.npz --size 28 --split given --out pneumoniamnist/data
	$(BIN)/pneumo train ludwig_configs/pneumoniamnist.yaml --data pneumoniamnist/data --runs-dir pneumoniamnist/runs
	$(BIN)/pneumo evaluate latest --runs-dir pneumoniamnist/runs --stress
	$(BIN)/pneumo export latest --runs-dir pneumoniamnist/runs --out pneumoniamnist/bundle

test: setup ## The default tests in JOBS processes (2) of one core each, with coverage
	OMP_NUM_THREADS=1 $(PYTEST) -n $(JOBS) --dist loadfile -m "not slow and not real and not browser" --cov --cov-report=term:skip-covered $(ARGS)

test-slow: setup ## Tests of minutes, with real X-rays where they are and a browser, but without the lengthy ones
	OMP_NUM_THREADS=1 $(PYTEST) -n $(JOBS) --dist loadfile -m "(real or slow or browser) and not lengthy" --durations=40 $(ARGS)

test-all: setup ## All tests: slow ones, real X-rays where they are, a service installed alone
	$(PYTEST) $(ARGS)

lint: setup ## Format check, lint, floors of imports, types, configs, workflows, Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pneumo config validate ludwig_configs/*.yaml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/zizmor --quiet --offline .
	$(BIN)/hadolint Dockerfile

format: setup ## Format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Benchmarks of speed: tables of ratios measured in one run (screening.py takes hours: run it by name)
	@for script in $(filter-out benchmarks/screening.py benchmarks/variants.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: setup ## Build the documentation into site/, without a network; check that every link and command in it exists
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(PYTEST) -q tests/test_docs.py

dist: setup ## Build the wheel and the source distribution into dist/, and try the wheel in an environment of its own
	rm -rf dist
	$(UV) build --quiet --out-dir dist .
	$(UV) run --quiet --isolated --no-project --python $(BIN)/python --with "$$(ls dist/*.whl)" pneumo --help >/dev/null

notices: setup ## Third-party notices of each image into dist/: name, version, license text of every package in its lock
	mkdir -p dist
	@for image in serve drift train; do \
		$(UV) venv --quiet --clear build/notices && \
		$(UV) pip sync --quiet --python build/notices/bin/python --require-hashes requirements-$$image.lock && \
		$(UV) tool run --quiet pip-licenses --python=build/notices/bin/python --from=all --format=plain-vertical \
			--with-urls --with-license-file --with-notice-file --no-license-path --output-file=build/notices.txt && \
		cat THIRD_PARTY_NOTICES.md build/notices.txt > dist/third-party-notices-$$image.txt || exit 1; \
	done

deploy-plan: setup ## Check deploy/ as far as that goes without an account
	$(PYTEST) -q -m "not slow" tests/deploy

serve: setup ## Serve the demo's champion on http://127.0.0.1:8000
	$(BIN)/pneumo serve --models-dir demo/models

LOCK = $(UV) pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	--custom-compile-command "make lock"

lock: .uv/bin/uv ## Compile requirements.lock and those of the images anew (PIN=--upgrade for newer versions)
	$(LOCK) --extra dev --output-file requirements.lock $(PIN) pyproject.toml
	$(LOCK) --constraints requirements.lock $(addprefix --extra ,serve postgres tracing) --output-file requirements-serve.lock pyproject.toml
	$(LOCK) --constraints requirements.lock $(addprefix --extra ,serve postgres tracing drift) --output-file requirements-drift.lock pyproject.toml
	printf 'dvc[gs]\n' | $(LOCK) --constraints requirements.lock \
		$(addprefix --extra ,train pretrained hyperopt drift postgres tracing gcs wandb mlflow tensorboard) --output-file requirements-train.lock pyproject.toml -

schema: setup ## Write pipeline/config/ludwig_schema.json from the installed Ludwig, and the schemas that editors read
	$(BIN)/python -m pneumo.pipeline.ludwig.schema_extract
	$(BIN)/pneumo config schema --out ludwig_configs/schema.json
	$(BIN)/pneumo config schema --gate --out ludwig_configs/gate.schema.json

clean: ## Remove environments, caches and the demo; data, runs and models stay
	rm -rf .venv .uv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
