"""Part of reliability.py: one predictor that many threads share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from clip import frames as clip_frames

import edgecnn

THREADS = 32


def measured() -> tuple[str, list[str]]:
    """Each result has to be that of one thread alone."""
    frames = list(clip_frames(4.0))[:: 100 // 16][:16]
    with edgecnn.load("face", runtime="ort") as detector:
        alone = [detector(frame).to_json() for frame in frames]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(
                pool.map(lambda i: detector(frames[i % 16]).to_json() == alone[i % 16], range(THREADS * 16))
            )
    text = f"## One predictor, many threads\n\n{THREADS} threads, {len(found)} frames: {sum(found)} results as of one thread."
    return text, [] if all(found) else ["threads that share a predictor disturb each other"]
