"""Which sink a path asks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgecnn.errors import InputError, Unavailable
from edgecnn.stream.base import Sink, Source
from edgecnn.stream.jsonl import KEPT, JsonlSink
from edgecnn.stream.outputs import protect_source
from edgecnn.stream.stills import STILL_SUFFIXES, FolderSink, StillSink
from edgecnn.stream.video import VIDEO_CODECS, VideoSink

__all__ = ["open_json", "open_save"]

KINDS = "a video (.mp4, .mkv, .avi), a picture (.png, .jpg) or, for pictures, a folder"


def open_json(path: str, source: Source, *, max_mb: float | None = None, keep: int | None = None) -> Sink:
    """Open the sink of ``--json``: a file of JSON lines, or ``-`` for standard output.

    Args:
        path: The file, or ``-``.
        source: Where the frames will come from; its events are noted between them.
        max_mb: Rotate the file before it grows beyond so many megabytes.
        keep: How many older files stay then; 5 if not given.

    Raises:
        InputError: It cannot be written, cannot be rotated, or is the source itself.
        Unavailable: Standard output is closed.
    """
    # the command line puts /dev/null in the place of a closed stdout; a redirected one has another name
    if path == "-" and (sys.stdout is None or getattr(sys.stdout, "name", "") == os.devnull):
        raise Unavailable("--json -: standard output is closed, so results would be lost; name a file")
    if path != "-":
        protect_source(Path(path), source, "--json")
        if Path(path).is_dir():
            raise InputError(f"--json {path}: is a folder; give a file")
    if max_mb is not None and (path == "-" or (Path(path).exists() and not Path(path).is_file())):
        raise InputError(f"--json {path}: only a file can be rotated; leave out --json-max-mb")
    sink = JsonlSink(path, None if max_mb is None else round(max_mb * 1e6), KEPT if keep is None else keep)
    source.listen(sink.note)
    return sink


def open_save(path: str, source: Source, *, segment_s: float | None = None, keep: int | None = None) -> Sink:
    """Open the sink of ``--save``, by the kind of the path.

    Args:
        path: A video, a picture, or a folder (which ends in a slash, exists, or has no suffix).
        source: Where the frames will come from.
        segment_s: Cut a video into files of so many seconds.
        keep: How many older ones stay then; all if not given.

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
        return VideoSink(wanted, source.fps, segment_s, keep)
    if suffix in STILL_SUFFIXES:
        return StillSink(wanted)
    raise InputError(f"--save {path}: {suffix} is not written here; give {KINDS}")


def _folder(folder: Path, source: Source) -> Sink:
    if source.fps is None and source.paths:
        return FolderSink(folder, source)
    raise InputError(f"--save {folder}: a folder goes with pictures; for {source.name} give a .mp4 or .png")
