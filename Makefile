# Two commands do everything, also on a fresh machine:
#   make demo   sets up, converts the face model, verifies it and finds faces in a clip
#   make test   sets up and passes the whole suite
# PYTHON=python3.12 make test   chooses the interpreter of a new environment (make clean removes the old one)

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test ros2 lint measure benchmarks peers coverage portability footprint reliability soak fuzz arm64 containers face clean

help:
	@sed -n 's/^#  *make/make/p' Makefile
	@echo "make setup       makes .venv with all that the others need; make clean removes it, and what was built"
	@echo "make lint        looks at style and types, as make test does first"
	@echo "make measure, make portability, make benchmarks"
	@echo "                 write the pages in docs/ (measurements, portability, benchmarks); need EDGECNN_DATA (docs/data.md)"
	@echo "make peers       writes docs/peers.md; installs what it compares with into build/peers (gigabytes)"
	@echo "make coverage    writes docs/coverage.md: hours the first time, and goes on where it was stopped"
	@echo "make footprint   writes docs/footprint.md; make reliability, half an hour, docs/reliability.md"
	@echo "make soak        an hour of memory, threads and files; make reliability takes it over"
	@echo "make fuzz        writes docs/fuzzing.md: mutants of every parser, and goes on where it was stopped"
	@echo "make ros2        makes build/ros2, a ROS 2 of wheels: with it, make test tests the ROS 2 node as well"
	@echo "make arm64, make containers   need root; see docs/arm64.md and docs/containers.md"
	@echo "make face    rebuilds the bundle that ships from examples/face_detector"

setup:
	@tools/setup.sh "$(PYTHON)"

demo: setup
	@$(BIN)/python examples/demo.py build/demo

lint: setup
	@tools/lint.sh

test: lint
	@$(BIN)/pytest -q -n 2 --dist loadfile

ros2:
	@tools/ros2.sh "$(PYTHON)"

measure: setup
	@$(BIN)/python benchmarks/measure.py docs/measurements.md

benchmarks: setup
	@$(BIN)/python benchmarks/speed.py docs/benchmarks.md

peers: setup
	@$(BIN)/python benchmarks/peers.py docs/peers.md

coverage: setup
	@$(BIN)/python -m pip install -q timm
	@$(BIN)/python benchmarks/coverage.py

portability: setup
	@$(BIN)/python benchmarks/portability.py --out docs/portability.md

reliability: setup
	@$(BIN)/python benchmarks/reliability.py docs/reliability.md

soak: setup
	@$(BIN)/python benchmarks/reliability.py docs/reliability.md --only soak --soak-minutes 60

footprint: setup
	@$(BIN)/python benchmarks/footprint.py docs/footprint.md

# atheris has wheels for some versions of Python only
fuzz: setup
	@$(BIN)/python -m pip install -q atheris || echo "without atheris"
	@$(BIN)/python -m tests.fuzz.run

arm64: setup
	@tools/arm64.sh

containers: setup
	@$(BIN)/python tools/check_dockerfiles.py

face: setup
	@SOURCE_DATE_EPOCH=1767225600 $(BIN)/python examples/face_detector/build.py edgecnn/models/face.edge

clean:
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
