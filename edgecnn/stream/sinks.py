"""Which sink a path asks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgecnn.errors import InputError, Unavailable
from edgecnn.stream.base import Sink, Source
from edgecnn.stream.jsonl import JsonlSink
from edgecnn.stream.outputs import protect_source
from edgecnn.stream.stills import STILL_SUFFIXES, FolderSink, StillSink
from edgecnn.stream.video import VIDEO_CODECS, VideoSink

__all__ = ["open_json", "open_save"]

KINDS = "a video (.mp4, .avi), a picture (.png, .jpg) or, for pictures, a folder"


def open_json(path: str, source: Source) -> Sink:
    """Open the sink of ``--json``: a file of JSON lines, or ``-`` for standard output.

    Raises:
        InputError: It cannot be written or is the source itself.
        Unavailable: Standard output is closed.
    """
    # the command line puts /dev/null in the place of a closed stdout; a redirected one has another name
    if path == "-" and (sys.stdout is None or getattr(sys.stdout, "name", "") == os.devnull):
        raise Unavailable("--json -: standard output is closed, so results would be lost; name a file")
    if path != "-":
        protect_source(Path(path), source, "--json")
        if Path(path).is_dir():
            raise InputError(f"--json {path}: is a folder; give a file")
    sink = JsonlSink(path)
    source.listen(sink.note)
    return sink


def open_save(path: str, source: Source) -> Sink:
    """Open the sink of ``--save``, by the kind of the path.

    Args:
        path: A video, a picture, or a folder (which ends in a slash, exists, or has no suffix).
        source: Where the frames will come from.

    Raises:
        InputError: Of no such kind, does not go with the source, is the source itself, or cannot be
            written.
    """
    wanted = Path(path)
    protect_source(wanted, source, "--save")
    suffix = wanted.suffix.lower()
    if path.endswith(("/", os.sep)) or wanted.is_dir() or not suffix:
        return _folder(wanted, source)
    if suffix in VIDEO_CODECS:
        return VideoSink(wanted, source.fps)
    if suffix in STILL_SUFFIXES:
        return StillSink(wanted)
    raise InputError(f"--save {path}: {suffix} is not written here; give {KINDS}")


def _folder(folder: Path, source: Source) -> Sink:
    if source.fps is None and source.paths:
        return FolderSink(folder, source)
    raise InputError(f"--save {folder}: a folder goes with pictures; for {source.name} give a .mp4 or .png")
