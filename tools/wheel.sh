#!/usr/bin/env bash
# Builds the wheel of this checkout into FOLDER, from a copy: setuptools would take up what an older build left behind.
# usage: tools/wheel.sh FOLDER [PYTHON]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: tools/wheel.sh FOLDER [PYTHON]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1")
python=${2:-python3}
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r pyproject.toml README.md LICENSE edgecnn converters runtimes calibration "$copy"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" "$copy"
