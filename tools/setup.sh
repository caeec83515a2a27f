#!/usr/bin/env bash
# Makes .venv with edgecnn (editable) and everything its tests and demo need; does nothing when it is there.
# usage: tools/setup.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
venv=.venv
need_gb=9   # the CUDA build of torch is what PyPI serves for Linux

fail() { echo "setup: $*" >&2; exit 3; }

stamp=$venv/.ready-$(cat pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then
    echo "setup: $venv is ready"
    exit 0
fi

if [ ! -x $venv/bin/python ]; then
    command -v "$python" >/dev/null || fail "$python not found; install Python 3.10 or newer, or name one: make PYTHON=python3.12 …"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$("$python" --version 2>&1) is too old; Python 3.10 or newer is needed: make PYTHON=python3.12 …"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian: apt-get install python3-venv"
fi
if [ -x $venv/bin/python ]; then
    $venv/bin/python -m pip --version >/dev/null 2>&1 || fail "$venv has no pip; remove it (make clean) and try again"
fi
if ! $venv/bin/python -c 'import torch' 2>/dev/null; then
    free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free_gb" -ge $need_gb ] || fail "$free_gb GB free on this disk, $need_gb GB are needed (torch alone takes 6)"
fi

if [ ! -x $venv/bin/python ]; then
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv $venv
fi
echo "setup: installing edgecnn and what its tests need into $venv (first time: a few minutes, 6 GB)"
log=$venv/setup.log
if ! $venv/bin/python -m pip install --disable-pip-version-check --no-input -e '.[dev]' >"$log" 2>&1; then
    grep -E '^ERROR' "$log" | tail -3 >&2 || true
    fail "pip could not install the packages (is there a network? the whole log is $log)"
fi
rm -f $venv/.ready-*
touch "$stamp"
echo "setup: done"
