# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo receivers chart test check release lint bench chaos soak calendar crowded lock licences audit sbom bundle clean compiled

# DEMO="--mode search" or DEMO="--keep" pass options to the demo.
demo: $(VENV)/ready-run
	$(BIN)/python -m event_handler.simulator.demo $(DEMO)

# Four at a time on any machine: most tests wait for sockets and processes, not for the CPU.
test: lint
	$(BIN)/python -m pytest -n 4 --dist worksteal

# Real receivers for the tests, fetched once into a cache outside the repository (Java, Maven and Go are needed).
receivers: $(VENV)/ready-dev
	$(BIN)/python -m tests.receivers $(RECEIVERS)

# What is made of the chart's values.yaml and the settings model: its schema, the table in docs/helm.md, what the tests have rendered.
chart: $(VENV)/ready-dev
	$(BIN)/python -m tests.deploy.chart

# Under a minute: before each commit.
check: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not soak and not proof" tests/unit

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# BENCH="--events 1000000 --only bulk" passes options to the benchmark; the others are in docs/performance.md.
bench: compiled
	PYTHONPATH=$(VENV)/compiled $(BIN)/python -m benchmarks.throughput $(BENCH)

# The package as a wheel installs it, compiled, and the simulated cluster beside it; an editable copy is never compiled.
compiled: $(VENV)/ready-dev
	rm -rf $(VENV)/compiled
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --target $(VENV)/compiled .
	@find $(VENV)/compiled -name '*.so' | grep -q . || { echo "nothing was compiled: pip wheel -v --no-deps . tells why" >&2; exit 1; }
	cp -R src/event_handler/simulator $(VENV)/compiled/event_handler/

# CHAOS="--seed 7 --mode search" repeats a run; `.venv/bin/python -m benchmarks.chaos --help` tells the options.
chaos: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks.chaos $(CHAOS)

# The slow proofs, then a connection for hours. SOAK="--way tunnel" goes in by another route.
soak: $(VENV)/ready-dev
	$(BIN)/python -m pytest -n 4 --dist worksteal -m soak
	$(BIN)/python -m benchmarks.soak $(SOAK)

# A release of the version in src/event_handler/__init__.py: sdist and compiled wheel in dist/, and the tag.
release: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks.release

# All tests at other times than now (needs faketime), and while busy loops take the processors. CALENDAR="--only midnight tests/unit"
calendar: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks.calendar $(CALENDAR)

crowded: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks.crowded $(CROWDED)

# The archive for machines without Python, for this system, in dist/.
bundle: $(VENV)/python-checked
	$(BIN)/python deploy/bundle/bundle.py

# Extras that the archive has; Parquet is too large.
BUNDLED = forward kafka nats opentelemetry postgresql redis srv zstd

lock: $(VENV)/python-checked
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --group simulator pyproject.toml -o requirements/run.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --group dev pyproject.toml -c requirements/run.lock -o requirements/dev.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --group bundle $(BUNDLED:%=--extra %) pyproject.toml -c requirements/dev.lock -o requirements/bundle.lock

# docs/licences.md; it ends where a licence would bind the whole, or is one that nobody has looked at.
licences: $(VENV)/ready-dev
	$(BIN)/python -m deploy.bundle.licences > $(VENV)/licences.md
	mv $(VENV)/licences.md docs/licences.md

# Known vulnerabilities of what is locked. It asks advisory services on the internet, so it is no part of `make test`.
PIP_AUDIT = 2.10.1
audit: $(VENV)/python-checked
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==$(PIP_AUDIT)
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes $(patsubst %,--requirement %,$(wildcard requirements/*.lock))

# What the archive is made of, for scanners (CycloneDX), in dist/.
CYCLONEDX_BOM = 7.5.0
sbom: $(VENV)/python-checked
	$(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install -q --disable-pip-version-check cyclonedx-bom==$(CYCLONEDX_BOM)
	mkdir -p dist
	$(VENV)/sbom/bin/cyclonedx-py requirements requirements/bundle.lock --output-reproducible -o dist/teleport-event-handler.cdx.json

$(VENV)/python-checked:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, and $(PYTHON) is %s. Try: make PYTHON=python3.12 <target>" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/ready-run: $(VENV)/python-checked requirements/run.lock pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.lock
	EVENT_HANDLER_PURE_PYTHON=1 $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/ready-dev: $(VENV)/python-checked requirements/dev.lock pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	EVENT_HANDLER_PURE_PYTHON=1 $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
