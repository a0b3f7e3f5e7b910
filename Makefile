# Every target sets up what it needs: `make demo` and `make test` are all that a newcomer has to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test lint parity bench bench-compare flow soak fuzz kafka kafka-stop clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with pinned, hash-checked dependencies

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"driftline needs Python 3.11 or newer; this is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once; about 6 GB, most of it torch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes \
	  --build-constraints requirements.lock requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock: ## pin the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
	echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url - -o requirements-uv.lock

demo: $(STAMP) ## replay a year of real shopping, and write its report
	@$(BIN)/driftline demo --out out/demo

lint: $(STAMP) ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: lint ## lint, types, tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

parity: $(STAMP) ## live and replayed, on whole data sets: the same alerts, profiles and lessons
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration/test_parity.py --whole -v

bench: $(STAMP) ## speed, memory and quality, beside what they are compared with (SCALE=1: 10 million users, too); needs Java and Maven
	@$(BIN)/python -m bench.interest
	@$(BIN)/python -m bench.scale $(if $(SCALE),--big)
	@$(BIN)/python -m bench.live
	@$(BIN)/python -m bench.pair
	@$(BIN)/python -m bench.latency
	@$(BIN)/python -m bench.recovery
	@$(BIN)/python -m bench.decoding $(wildcard ../shared/data/online_retail/events.csv.gz) build/bench/complete_journey.parquet
	@$(BIN)/python -m bench.training
	@$(BIN)/python -m bench.scoring
	@$(BIN)/python -m bench.drift
	@$(BIN)/python -m bench.trends
	@$(BIN)/python -m bench.population

bench-compare: $(STAMP) ## what got slower than in the figures kept in BEFORE=DIRECTORY
	@$(BIN)/python -m bench.compare $(BEFORE)

flow: $(STAMP) ## 5,000 clicks a second for MINUTES=60 while the learner trains: memory, rebalances, lag; Java and Maven
	@$(BIN)/python -m bench.flow --minutes $(or $(MINUTES),60)

soak: $(STAMP) ## kill brokers, workers, a learner KILLS=200 times, and count what is left (SEED=N repeats); Java and Maven
	@$(BIN)/python -m bench.soak --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

fuzz: $(STAMP) ## every decoder, INPUTS=1000000 mutated inputs (SEED=N: others)
	@$(BIN)/python -m bench.fuzz --inputs $(or $(INPUTS),1000000) $(if $(SEED),--seed $(SEED))

kafka: $(STAMP) ## start a broker on this machine (BROKERS=3: three); without Java, in Docker
	@$(BIN)/python -m deploy.kafka start --brokers $(or $(BROKERS),1) --port 9092 --dir build/kafka/local

kafka-stop: $(STAMP) ## stop it
	@$(BIN)/python -m deploy.kafka stop --dir build/kafka/local

clean: ## remove what was built; the environment stays
	rm -rf build out .mypy_cache .ruff_cache .pytest_cache .hypothesis
