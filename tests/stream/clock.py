"""A wall clock that jumps, for programs that are started with it; what measures durations goes on as before."""

from __future__ import annotations

import os
from pathlib import Path

# of Debian's package faketime; in a folder that is named after the machine
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clock:
    """The clock of a program.

    Attributes:
        environment: To start the program with.
        offset_s: How far it is from that of the machine.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """Set it, all at once."""
        self.offset_s = offset_s
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{offset_s:+d}\n")
        beside.replace(self._file)
