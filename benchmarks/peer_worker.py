"""One side of a comparison in a process of its own; runs in both environments, and each tool is imported by its own job.

usage: python benchmarks/peer_worker.py '{"tool": …, "model": …, "source": …}'   (see peers.py, which starts it)

Each line on stdin makes it do its job once, from the opened file to the last result, and answer with one line of JSON:
frames, seconds, and seconds of the processor. The first is answered with the versions, when the model is loaded; a line
``answers PATH`` writes the results of the last time to an npz, an array for each frame: of a detector x1 y1 x2 y2, score and
class a row, of a classifier class and score.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np

Job = Callable[[], list[np.ndarray]]


def predictor(config: dict[str, Any]) -> Any:
    """A bundle opened for throughput."""
    import edgecnn

    return edgecnn.load(
        config["model"],
        runtime=config["runtime"],
        mode="throughput",
        threshold=config["threshold"],
        tiles=config.get("overlap"),
    )


def edgecnn(config: dict[str, Any]) -> Job:
    """A bundle on a video, or in tiles on an image."""
    opened = predictor(config)

    def answer(result: Any) -> np.ndarray:
        if opened.spec.task == "detection":
            return np.column_stack([result.boxes, result.scores, result.class_ids])
        return np.column_stack([result.class_ids, result.scores])

    if "overlap" in config:
        image = cv2.imread(config["source"])
        return lambda: [answer(opened(image))]
    return lambda: [answer(result) for _, result in opened.stream(config["source"])]


def engine(config: dict[str, Any]) -> Job:
    """The engine alone, kept busy with an input that is ready."""
    runtime = predictor(config).runtime
    feeds = {info.name: np.zeros(info.shape, info.dtype) for info in runtime.inputs}

    def job() -> list[np.ndarray]:
        under_way: deque[Any] = deque()
        for _ in range(config["inferences"]):
            under_way.append(runtime.submit(feeds))
            if len(under_way) > runtime.parallel:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
        return [np.empty(0)] * config["frames"]

    return job


def ultralytics(config: dict[str, Any]) -> Job:
    """``predict(stream=True)`` on a video."""
    from ultralytics import YOLO

    model = YOLO(config["model"], task="detect" if config["detects"] else "classify")

    def answer(result: Any) -> np.ndarray:
        if result.boxes is not None:
            return result.boxes.data.numpy().copy()
        best = result.probs.top5
        return np.column_stack([best, result.probs.data.numpy()[best]])

    options = {"stream": True, "verbose": False, "device": "cpu", "conf": config["threshold"], "iou": 0.7}
    return lambda: [answer(result) for result in model.predict(config["source"], **options)]


def model_api(config: dict[str, Any]) -> Job:
    """The model called frame by frame, or with ``ahead`` through its AsyncPipeline."""
    from model_api.models import Model
    from model_api.pipelines import AsyncPipeline

    detects = config["detects"]
    settings = {"confidence_threshold": config["threshold"], "iou_threshold": 0.7} if detects else {"topk": 5}
    kind = "YOLO11" if detects else "Classification"
    model = Model.create_model(config["model"], model_type=kind, configuration=settings, preload=True)

    def answer(result: Any) -> np.ndarray:
        if detects:
            return np.column_stack([result.bboxes, result.scores, result.labels])
        return np.array([(label.id, label.confidence) for label in result.top_labels])

    def frame_by_frame() -> list[np.ndarray]:
        capture, found = cv2.VideoCapture(config["source"]), []
        while (read := capture.read())[0]:
            found.append(answer(model(read[1])))
        return found

    def ahead() -> list[np.ndarray]:
        capture, pipeline, found, submitted = cv2.VideoCapture(config["source"]), AsyncPipeline(model), [], 0
        while True:
            while pipeline.is_ready() and (read := capture.read())[0]:
                pipeline.submit_data(read[1], submitted)
                submitted += 1
            if len(found) == submitted:
                return found
            while (done := pipeline.get_result(len(found))) is not None:
                found.append(answer(done[0]))
            if len(found) < submitted:
                pipeline.await_any()

    return ahead if config.get("ahead") else frame_by_frame


def sahi(config: dict[str, Any]) -> Job:
    """Slices of an image, and the whole of it."""
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model_path=config["model"],
        confidence_threshold=config["threshold"],
        device="cpu",
    )
    image = cv2.cvtColor(cv2.imread(config["source"]), cv2.COLOR_BGR2RGB)
    options = dict.fromkeys(("slice_height", "slice_width"), config["side"])
    options |= dict.fromkeys(("overlap_height_ratio", "overlap_width_ratio"), config["overlap"])

    def job() -> list[np.ndarray]:
        result = get_sliced_prediction(image, model, verbose=0, **options, **config.get("merge", {}))
        rows = [
            (*found.bbox.to_xyxy(), found.score.value, found.category.id)
            for found in result.object_prediction_list
        ]
        return [np.array(rows).reshape(-1, 6)]

    return job


JOBS = {
    "edgecnn": (edgecnn, ("edgecnn",)),
    "engine": (engine, ()),
    "ultralytics": (ultralytics, ("ultralytics", "torch", "openvino", "onnxruntime")),
    "model_api": (model_api, ("openvino-model-api",)),
    "sahi": (sahi, ("sahi", "ultralytics", "torch")),
}


def use_float32() -> None:
    """Let OpenVINO compute in float32 what is not INT8; unasked it takes bfloat16 where a CPU has it."""
    import openvino

    class Core(openvino.Core):
        def __init__(self) -> None:
            super().__init__()
            self.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    openvino.Core = Core


def main() -> None:
    """Serve until stdin ends; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = json.loads(sys.argv[1])
    if config.get("float32"):
        use_float32()
    make, packages = JOBS[config["tool"]]
    job = make(config)
    found: list[np.ndarray] = job()
    print(json.dumps({"versions": {name: version(name) for name in packages}}), file=answers, flush=True)
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        if command == "answers":
            np.savez(path, *found)
            done: dict[str, float] = {}
        else:
            start, spent = time.perf_counter(), time.process_time()
            found = job()
            seconds, cpu_s = time.perf_counter() - start, time.process_time() - spent
            done = {"frames": len(found), "seconds": seconds, "cpu_s": cpu_s}
        print(json.dumps(done), file=answers, flush=True)


if __name__ == "__main__":
    main()
