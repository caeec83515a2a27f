# Two commands do everything, also on a fresh machine:
#   make demo   sets up, converts the face model, verifies it and finds faces in a clip
#   make test   sets up and passes the whole suite
# PYTHON=python3.12 make test   chooses the interpreter of a new environment (make clean removes the old one)

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test lint measure face clean

help:
	@sed -n 's/^#  *make/make/p' Makefile
	@echo "make measure writes docs/measurements.md; needs EDGECNN_DATA (docs/data.md)"
	@echo "make face    rebuilds the bundle that ships from examples/face_detector"

setup:
	@tools/setup.sh "$(PYTHON)"

demo: setup
	@$(BIN)/python examples/demo.py build/demo

lint: setup
	@tools/lint.sh

test: lint
	@$(BIN)/pytest -q

measure: setup
	@$(BIN)/python benchmarks/measure.py docs/measurements.md

face: setup
	@SOURCE_DATE_EPOCH=1767225600 $(BIN)/python examples/face_detector/build.py edgecnn/models/face.edge

clean:
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
