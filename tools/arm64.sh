#!/usr/bin/env bash
# Installs edgecnn without torch on a real arm64 Python, under qemu's user emulation, and compares its boxes with those
# of this machine. docs/arm64.md explains it. What takes long (a Debian, the wheels) is kept in build/arm64.
# usage: sudo tools/arm64.sh
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/build/arm64
root=$work/root
here=.venv/bin/python
binfmt=/proc/sys/fs/binfmt_misc

fail() { echo "arm64: $*" >&2; exit 3; }
say() { echo "arm64: $*"; }

[ "$(id -u)" = 0 ] || fail "mounts and chroot need root: sudo tools/arm64.sh"
for program in qemu-aarch64-static debootstrap unshare chroot; do
    command -v "$program" >/dev/null || fail "$program not found; on Debian: apt-get install qemu-user-static debootstrap"
done
[ -x $here ] || fail "$here not found; make setup makes it"

# mounts in a namespace of our own end with us, however we end
if [ "${EDGECNN_ARM64_INSIDE:-}" != yes ]; then
    EDGECNN_ARM64_INSIDE=yes exec unshare --mount --propagation private -- "$0" "$@"
fi

entry=
trap '[ -z "$entry" ] || echo -1 >"$entry"' EXIT
trap 'exit 130' INT TERM HUP

register() {
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt ||
        fail "the kernel has no binfmt_misc; it is needed to run arm64 programs"
    if [ -e $binfmt/qemu-aarch64 ]; then
        grep -q '^flags:.*F' $binfmt/qemu-aarch64 ||
            fail "$binfmt/qemu-aarch64 lacks the flag F, so a chroot cannot use it; remove it: echo -1 > $binfmt/qemu-aarch64"
        return
    fi
    # a little-endian 64-bit ELF, executable or shared, for machine 0xb7 (aarch64)
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >$binfmt/register
    entry=$binfmt/qemu-aarch64
}

debian() {
    [ -d "$root" ] && return
    say "unpacking an arm64 Debian into build/arm64/root (a few minutes)"
    rm -rf "$root.part"
    # the mirror of this machine; none: debootstrap's own
    local mirror=()
    mapfile -t mirror < <(grep -rhoE 'https?://[^ ]+/debian/?$' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -1)
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv bookworm "$root.part" "${mirror[@]}" \
        >"$work/debootstrap.log" 2>&1 || fail "debootstrap failed: $(tail -1 "$work/debootstrap.log") (build/arm64/debootstrap.log)"
    mv "$root.part" "$root"
}

wheels() {
    local stamp
    stamp=$work/wheels-$(sha256sum pyproject.toml "$0" | sha256sum | cut -c1-16)
    rm -f "$work"/edgecnn-*.whl
    tools/wheel.sh "$work" $here
    [ -d "$stamp" ] && { rm -rf "$root/wheels"; cp -r "$stamp" "$root/wheels"; return; }
    say "downloading the arm64 wheels of edgecnn[cpu]"
    rm -rf "$work"/wheels-*
    $here -m pip download -qq --disable-pip-version-check --only-binary=:all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 -d "$stamp.part" "$(echo "$work"/edgecnn-*.whl)[cpu]"
    rm -f "$stamp.part"/edgecnn-*.whl
    mv "$stamp.part" "$stamp"
    rm -rf "$root/wheels" "$root/opt/edgecnn"
    cp -r "$stamp" "$root/wheels"
}

there() { chroot "$root" /usr/bin/env -i PATH=/opt/edgecnn/bin:/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }

install() {
    cp "$work"/edgecnn-*.whl "$root/wheels"
    local pip=(python -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-index --find-links /wheels)
    if [ ! -d "$root/opt/edgecnn" ]; then
        say "installing edgecnn[cpu] there"
        there python3 -m venv /opt/edgecnn.part
        there mv /opt/edgecnn.part /opt/edgecnn
        there "${pip[@]}" 'edgecnn[cpu]'
    fi
    there "${pip[@]}" --force-reinstall --no-deps edgecnn
}

mkdir -p "$work"
register
debian
# no /sys: ONNX Runtime would take the processors it finds there for arm64 ones and crash
mount -t proc proc "$root/proc"
there uname -m | grep -qx aarch64 || fail "an arm64 program does not run; see /proc/sys/fs/binfmt_misc/qemu-aarch64"
wheels
install

say "finding faces here and there (emulated: correctness only, never speed)"
$here -c 'import sys, numpy, skimage.data; numpy.save(sys.argv[1], skimage.data.astronaut()[..., ::-1].copy())' "$work/frame.npy"
$here tools/arm64/detect.py "$work/frame.npy" "$work/here.json"
cp "$work/frame.npy" tools/arm64/detect.py "$root/tmp"
# ONNX Runtime does not know the emulated processor and says so on stderr, which is kept for a failure
there python /tmp/detect.py /tmp/frame.npy /tmp/there.json 2>"$work/there.log" || { cat "$work/there.log" >&2; exit 1; }
status=0
$here tools/arm64/compare.py "$work/here.json" "$root/tmp/there.json" || status=1
command_there() {
    say "edgecnn $*, there:"
    there edgecnn "$@" 2>"$work/there.log" || { cat "$work/there.log" >&2; status=1; }
}
command_there verify face
command_there doctor
exit $status
