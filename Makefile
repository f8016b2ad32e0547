# make demo       set up, export the demonstration model, segment the demonstration clip
# make test       set up, then lint, types and quick tests: what CI runs
# make test-slow  the tests that take minutes
# make test-newest, test-oldest  the tests that need no torch, with the newest and the oldest libraries and Python
# make fuzz       half an hour of odd input for whatever reads foreign data; SEED=7 repeats a run
# make test-arm64, test-arm64-all  part and all of the runtime's tests on an emulated ARM machine (Debian hosts)
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
WORKERS ?= 2
BIN := $(VENV)/bin
# Compiling all of what is installed takes longer than installing it, and most of it is never imported.
INSTALL := $(BIN)/pip install -q --no-compile
# Tests start many processes: what they import is compiled by the first of them.
unexport PYTHONDONTWRITEBYTECODE
# Threads that wait by spinning slow a busy machine down several times.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test pytest fuzz test-slow test-newest test-oldest test-arm64 test-arm64-all lint types format clean

demo: $(VENV)/.demo
	mkdir -p $(OUT)
	$(BIN)/sfpp-export --variant fast --res 960x540 -o $(OUT)/segformer-b0-fast-960x540.onnx
	$(BIN)/sfpp-run $(OUT)/segformer-b0-fast-960x540.onnx demo -o $(OUT)/demo.mp4 --snapshot $(OUT)/demo.png
	@echo
	@echo "video:   $(CURDIR)/$(OUT)/demo.mp4"
	@echo "picture: $(CURDIR)/$(OUT)/demo.png"

# Types beside the tests: at the end there are seldom tests for every core.
test: lint
	$(MAKE) -j2 types pytest

# By file, since tests of one file share what takes long to make.
pytest: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# What fails is kept in build/fuzz and tried first the next time.
fuzz: SEED := $(shell date +%s)
fuzz: $(VENV)/.dev
	$(BIN)/python -m pytest tests/fuzz -n $(WORKERS) --dist worksteal --hypothesis-profile=long --hypothesis-seed=$(SEED)

# FFmpeg's command makes videos to try.
test-slow: $(VENV)/.dev
	$(INSTALL) "imageio-ffmpeg>=0.6"
	$(BIN)/python -m pytest -m slow

test-newest test-oldest:
	$(PYTHON) -m tests.machines.native $(@:test-%=%)

test-arm64: build/arm64/.ready $(VENV)/.dev
	$(BIN)/python -m tests.machines.arm64

test-arm64-all: build/arm64/.ready $(VENV)/.dev
	$(BIN)/python -m tests.machines.arm64 all

build/arm64/.ready: constraints.txt tests/machines/arm64.sh
	PYTHON=$(PYTHON) tests/machines/arm64.sh setup build/arm64
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# mypy does not see through the package mapping of an editable install, so it is shown a tree of links.
types: $(VENV)/.dev
	mkdir -p build/typing/sfpp
	for part in __init__.py commands.py py.typed; do ln -sfn $(CURDIR)/package/$$part build/typing/sfpp/$$part; done
	for part in runtime tooling export calibration; do ln -sfn $(CURDIR)/$$part build/typing/sfpp/$$part; done
	MYPYPATH=build/typing $(BIN)/mypy -p sfpp

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build $(OUT) *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The CPU build of torch is a tenth of the default one. Where the index has no such build, the plain version is taken.
# What it needs comes with what follows, so that both can be installed at the same time.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	version=$$(sed -n 's/^torch==//p' $<); \
	$(INSTALL) --no-deps "torch==$$version+cpu" 2>/dev/null || $(INSTALL) --no-deps "torch==$$version"
	touch $@

# Setuptools among them, so that no environment of its own is made to build in.
$(VENV)/.libraries: constraints.txt | $(BIN)/python
	sed '/^torch==/d' $< > $@.txt
	$(INSTALL) -r $@.txt
	mv $@.txt $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(INSTALL) -c constraints.txt -e '.[cpu,video,export]' -e ./demo-weights
	touch $@

$(VENV)/.dev: constraints.txt pyproject.toml | $(BIN)/python
	$(MAKE) -j2 $(VENV)/.torch $(VENV)/.libraries
	$(INSTALL) --no-build-isolation -c constraints.txt -e '.[dev]' -e ./demo-weights
	touch $@ $(VENV)/.demo
