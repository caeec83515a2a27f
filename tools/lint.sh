#!/usr/bin/env bash
# Ruff on everything, mypy (strict) on the package as it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check . >/dev/null || { .venv/bin/ruff format --check . | tail -3; echo "lint: run .venv/bin/ruff format ."; exit 1; }

# mypy does not follow an editable install's import hook, so it sees the mapped folders through links
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/edgecnn"
ln -s "$PWD"/edgecnn/* "$tree/edgecnn/"
for folder in converters runtimes calibration; do ln -s "$PWD/$folder" "$tree/edgecnn/$folder"; done
cache=$PWD/.mypy_cache
config=$PWD/pyproject.toml
python=$PWD/.venv/bin/python
(cd "$tree" && "$python" -m mypy --config-file "$config" --python-executable "$python" --cache-dir "$cache" -p edgecnn)
