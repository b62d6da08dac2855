# GNU make 3.81 (macOS) is enough.

PYTHONS = python3 python3.13 python3.12 python3.11
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# Sets $$python to the first supported Python on PATH, or ends the recipe.
FIND_PYTHON = python=; for name in $(PYTHONS); do \
	if "$$name" -c '$(SUPPORTED)' >/dev/null 2>&1; then python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then echo "Python 3.11, 3.12 or 3.13 is needed, none is on PATH" >&2; exit 1; fi
# $(call WITH_TOOL,package) installs a package of its own into $$tools/bin until the recipe ends.
WITH_TOOL = $(FIND_PYTHON); tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	"$$python" -m venv "$$tools" && "$$tools/bin/pip" --disable-pip-version-check --quiet install $(1) || exit 1;
SHELL = /bin/bash
# Python keeps compiled modules, also where the environment forbids it. The tests start hundreds of processes, and each
# would compile the product's modules again.
export PYTHONDONTWRITEBYTECODE =
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
STAMP = .venv/.installed
# Four processes on two cores, because the tests of real servers mostly wait. The tests of a file share their servers.
# conftest.py orders the files: xdist would start files of one test last.
PARALLEL = -n 4 --dist loadfile --no-loadscope-reorder
FAULTS ?= 30
RECORDS ?= 100000
STEPS ?= 100000
SEED ?= 1

.PHONY: help install demo demo-kill test fault-test long-test scale-test ui-test container-test check kafka lock sbom audit bench bench-quick chaos fuzz simulate clean

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## Make .venv with the locked packages and this one, editable

$(STAMP): requirements.lock pyproject.toml
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || { $(FIND_PYTHON); "$$python" -m venv --clear .venv; }
	@echo "Installing the locked packages into .venv. This takes about a minute."
	@set -o pipefail; $(BIN)/python -m pip --disable-pip-version-check install --require-hashes -r requirements.lock \
		| if [ -t 1 ]; then awk -v all="$$(grep -c == requirements.lock)" \
			'/^Collecting/ {printf "\r  %d of %d packages", ++n, all} /^Installing/ {printf "\n  unpacking"} \
			{fflush()} END {print ""}'; else cat >/dev/null; fi
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: install ## Broker, PostgreSQL, devices and Dagster on this machine. Ctrl-C ends it (ARGS=--help)
	@$(BIN)/ingest demo $(ARGS)

demo-kill: install ## The demo kills a run every 20 s and counts at its end what was stored (ARGS=...)
	@$(BIN)/ingest demo --kill-every 20 $(ARGS)

test: install ## Run the tests (ARGS='-k name')
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

fault-test: install ## The tests with random kills, records and steps from a seed (ARGS='-k name')
	@$(BIN)/pytest $(PARALLEL) -m faults $(ARGS)

long-test: install ## The tests that take minutes each (ARGS='-k name')
	@$(BIN)/pytest -m long $(ARGS)

scale-test: install ## Two Celery workers on a real Redis: one is killed in mid-drain (needs redis-server)
	@REQUIRE_REDIS=1 REQUIRE_KAFKA=1 $(BIN)/pytest ingest_pipeline_tests/orchestration/test_celery.py -s $(ARGS)

ui-test: install ## Test Dagster's UI in a real browser (needs Chromium) and renew docs/images
	@SCREENSHOTS=docs/images $(BIN)/pytest ingest_pipeline_tests/ui $(ARGS)

container-test: install ## Start docker-compose.yml with a new image, kill and stop it, count the rows (needs Docker. ARGS=--stand-ins needs no registry)
	@$(BIN)/python -m ingest_pipeline_tests.containers $(ARGS)

check: install ## Format, lint, types, docs, tests
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/python -m ingest_pipeline.settings.docs --check docs/configuration.md
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

kafka: install ## Fetch Kafka and a schema registry for the tests (needs Java and Maven, once)
	@$(BIN)/python -m ingest_pipeline_tests.servers.kafka_jars
	@$(BIN)/python -m ingest_pipeline_tests.servers.schema_registry

lock: ## Make both locks again from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(call WITH_TOOL,uv==0.13.9) \
	compile="$$tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
		--no-header pyproject.toml"; \
	$$compile --extra dev --output-file requirements.lock $(ARGS) && \
	$$compile --extra production --no-annotate --constraint requirements.lock --output-file requirements-prod.lock

sbom: ## Write sbom.cdx.json, the CycloneDX list of the packages in production
	@$(call WITH_TOOL,cyclonedx-bom==7.5.0) \
	"$$tools/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible requirements-prod.lock \
		--output-file sbom.cdx.json

audit: ## Look for known vulnerabilities of the locked packages. Fails also without data about a package
	@$(call WITH_TOOL,pip-audit==2.10.1) \
	for lock in requirements-prod.lock requirements.lock; do \
		"$$tools/bin/pip-audit" --strict --disable-pip --require-hashes --progress-spinner off --requirement $$lock || exit 1; \
	done

bench: install ## Measure throughput on this machine (ARGS=--help)
	@$(BIN)/python -m benchmarks.run $(ARGS)

bench-quick: install ## The ratio to the plain asyncio design, in a minute. Fails below 2
	@$(BIN)/python -m benchmarks.quick $(ARGS)

chaos: install ## Random faults on real servers. Fails if a record is lost or stored twice (FAULTS=30 SEED=1 ARGS='--brokers 3' or '--streams 12 --job shared')
	@$(BIN)/python -m ingest_pipeline_tests.faults.chaos --faults $(FAULTS) --seed $(SEED) $(ARGS)

fuzz: install ## Random broken records. Fails if a record is not accounted for (RECORDS=n SEED=s)
	@$(BIN)/python -m ingest_pipeline_tests.faults.fuzz --records $(RECORDS) --seed $(SEED)

simulate: install ## The real loop on in-memory servers with random faults, checked after each step (STEPS=n SEED=s)
	@$(BIN)/python -m ingest_pipeline_tests.simulation --steps $(STEPS) --seed $(SEED)

clean: ## Remove .venv, caches and the demo's files
	@rm -rf .venv .demo .dagster_storage .tmp_dagster_home* .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info sbom.cdx.json
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
