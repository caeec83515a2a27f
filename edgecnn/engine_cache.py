"""TensorRT engines of this device: when one fits, and where they are kept.

An engine belongs to one version of TensorRT and one kind of GPU. It can always be built again from the
ONNX, so it is kept in the user's cache, under a name made of all that it depends on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecnn.cuda_api import compute_capability
from edgecnn.devices.jetson import l4t_release
from edgecnn.errors import Unavailable, first_line
from edgecnn.paths import is_private, make_private, replace_file
from edgecnn.tensorrt_api import find_tensorrt

__all__ = ["EngineCache", "Recipe", "Target", "fits_here", "target_here"]

log = logging.getLogger(__name__)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine runs on, and on nothing else.

    Attributes:
        flavor: ``tensorrt`` or ``tensorrt_rtx``.
        tensorrt: Its version.
        compute_capability: Of the GPU, such as ``8.7``.
        l4t: Release of Jetson Linux, None elsewhere.
    """

    flavor: str
    tensorrt: str
    compute_capability: str
    l4t: str | None = None

    def __str__(self) -> str:
        on = f" on Jetson Linux {self.l4t}" if self.l4t else ""
        return f"{self.flavor} {self.tensorrt} and compute capability {self.compute_capability}{on}"


def target_here() -> Target:
    """What an engine built here runs on.

    Raises:
        MissingDependency: There is no TensorRT, or no cuda-python.
        DeviceUnavailable: There is no GPU.
    """
    found = find_tensorrt()
    return Target(
        flavor=found.flavor,
        tensorrt=found.version,
        compute_capability=compute_capability(),
        l4t=l4t_release(),
    )


def fits_here(requires: Mapping[str, str], here: Target | None = None) -> str | None:
    """Why an engine of a bundle cannot be loaded here; None where it can.

    Args:
        requires: Its ``flavor``, ``tensorrt`` and ``compute_capability``, as the manifest has them.
        here: Defaults to `target_here`.
    """
    try:
        here = here or target_here()
    except Unavailable as error:
        return str(error)
    names = ("flavor", "tensorrt", "compute_capability")
    if all(requires.get(name) == getattr(here, name) for name in names):
        return None
    wanted = Target(**{name: requires.get(name, "unknown") for name in names})
    return f"built for {wanted}; here is {here}"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine depends on.

    Attributes:
        onnx_sha256: Of the bytes it is built from.
        precision: Of these.
        batches: Smallest, usual and largest batch, where the model leaves it open.
        target: What it is to run on.
    """

    onnx_sha256: str
    precision: str
    batches: tuple[int, int, int]
    target: Target

    @property
    def key(self) -> str:
        """The sha256 of it all: another one for anything that changes."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a kept engine: its recipe, the sha256 of its bytes, and the seconds it took."""

    recipe: Recipe
    sha256: str
    build_s: float


@dataclass(frozen=True)
class EngineCache:
    """Engines in a folder, by recipe; since they are machine code, only if nobody else could write there."""

    folder: Path

    def get(self, recipe: Recipe) -> bytes | None:
        """The engine of a recipe as it was kept; None where there is none, or not as it was."""
        path = self._path(recipe)
        try:
            if not is_private(self.folder):
                log.warning("%s: engines are not loaded from it: others may write there", self.folder)
                return None
            plan = path.read_bytes()
            kept = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("%s: cannot be read, and is built again (%s)", path, first_line(error))
            return None
        if kept.recipe != recipe or kept.sha256 != hashlib.sha256(plan).hexdigest():
            log.warning("%s: was altered, and is built again", path)
            return None
        return plan

    def put(self, recipe: Recipe, plan: bytes, build_s: float) -> None:
        """Keep an engine; where the folder cannot be written to, that is logged and no more."""
        kept = Kept(recipe=recipe, sha256=hashlib.sha256(plan).hexdigest(), build_s=round(build_s, 3))
        path = self._path(recipe)
        try:
            make_private(self.folder)
            replace_file(path, plan)
            replace_file(path.with_suffix(".json"), msgspec.json.encode(kept))
        except OSError as error:
            log.warning("%s: the engine cannot be kept, and is built each time (%s)", path, first_line(error))

    def _path(self, recipe: Recipe) -> Path:
        return self.folder / f"{recipe.key}.engine"
