"""Programs that write frames until they are killed, and what they had told of by then."""

from __future__ import annotations

import random
import subprocess
import sys
import time

WRITER = """
from pathlib import Path
import numpy as np
from edgecnn.results import Detections
from edgecnn.stream import Frame, JsonlSink, VideoSink, open_source
from edgecnn.stream.network import open_outboxes
sink = {sink}
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 96, 128, 3), np.uint8)
for number in range(1_000_000):
    image = images[number % 8]
    sink.write(Frame(number, image, number / 10, "camera:0"), Detections.empty(), lambda: image)
    print(number, flush=True)
"""


def write_until_killed(sink: str, seed: int, least: int = 0) -> int:
    """Let a program write to a sink, kill it at some moment, and give the last frame that it reported.

    Args:
        sink: The expression that makes it.
        seed: Of the moment.
        least: Frames that are waited for before.
    """
    with subprocess.Popen(
        [sys.executable, "-c", WRITER.format(sink=sink)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) >= least:
                break
        time.sleep(random.Random(seed).uniform(0, 0.4))
        process.kill()
        return max([int(line), *(int(each) for each in process.stdout.read().split("\n")[:-1])])
