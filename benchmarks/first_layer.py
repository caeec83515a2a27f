"""INT8 on the bytes of an image, beside the same networks on a float tensor that somebody else has normalised.

usage: python benchmarks/first_layer.py [--data DIR]

Prints its part of docs/benchmarks.md; exit 1 when a goal is missed. One thread, one image, medians of turns. The
networks and images are not part of the project: --data, $EDGECNN_DATA or ../shared/data names their folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from faces import data_folder
from int8 import decisions
from networks import CALIBRATION_IMAGES, Network, labelled, networks, split
from onnx import helper, numpy_helper
from tables import table

from edgecnn.calibration import draw_samples
from edgecnn.calibration.int8 import Int8Builder
from edgecnn.converters import canonical, load_model
from edgecnn.converters.onnx_packed import unpack_pixels
from edgecnn.runtimes import Artifact, Runtime, RuntimeOptions, backend
from edgecnn.timing import SpeedComparison, compare_speed

NETWORKS = ("squeezenet", "mobilenet_v2", "efficientnet_lite0")
ENGINES = {"ort": "ONNX Runtime", "openvino": "OpenVINO"}
PREPROCESSING = ("Cast", "Transpose", "Mul", "Add")
SECONDS = 5.0
# goals
LARGEST_RATIO, LEAST_SAME = 1.03, 0.998

Images = npt.NDArray[np.uint8]


def unfolded(small: bytes, whole: bytes) -> bytes:
    """An INT8 network whose first layer reads normalised floats behind the fp32 network's own preprocessing.

    Its weights are the same codes, with the factor of the normalisation taken out again, and it has the zero padding
    of the fp32 network, so that what it decides otherwise comes from folding alone.
    """
    model, given = onnx.load_from_string(unpack_pixels(small)), onnx.load_from_string(whole)
    known = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in (*model.graph.initializer, *given.graph.initializer)
    }
    made = {name: node for node in model.graph.node for name in node.output}
    chain = [node for node in given.graph.node if node.name in {f"edgecnn/{op}" for op in PREPROCESSING}]
    factor, offset = (
        next((known[node.input[1]].astype(np.float64) for node in chain if node.op_type == op), neutral)
        for op, neutral in (("Mul", np.ones(1)), ("Add", np.zeros(1)))
    )
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    original = next(node for node in given.graph.node if node.name == conv.name)
    codes, scales = (known[name].astype(np.float64) for name in made[conv.input[1]].input)
    whole_bias = known[made[conv.input[2]].input[0]].astype(np.float64)
    folded = codes * scales.reshape(-1, 1, 1, 1)
    arrays = {
        "unfolded.weight": folded / factor,
        "unfolded.bias": whole_bias * scales - (folded * (offset / factor + 128)).sum((1, 2, 3)),
    }
    del conv.attribute[:]
    conv.attribute.extend(original.attribute)
    conv.input[:] = [chain[-1].output[0], *arrays]
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    model.graph.initializer.extend(
        tensor for tensor in given.graph.initializer if tensor.name.startswith("edgecnn.preprocess")
    )
    nodes = [*chain, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def quantised_apart(whole: bytes, samples: Images) -> tuple[bytes, bytes]:
    """The network in INT8 with nothing folded: from bytes on, and from normalised floats on."""
    model = onnx.load_from_string(whole)
    nodes = list(model.graph.node)
    last = max(i for i, node in enumerate(nodes) if node.name in {f"edgecnn/{op}" for op in PREPROCESSING})
    result = nodes[last].output[0]
    nodes[last].output[0] = "normalised"
    # nothing is folded past an operation that is not known
    model.graph.node.insert(last + 1, helper.make_node("Identity", ["normalised"], [result], "stop"))
    from_bytes = Int8Builder(model.SerializeToString(), samples, method="minmax", threads=1).build("cpu")
    cut = onnx.load_from_string(from_bytes)
    stop = next(node for node in cut.graph.node if node.op_type == "Identity")
    before = {stop.output[0]}
    for node in reversed(list(cut.graph.node)):
        if before.intersection(node.output):
            before.update(node.input)
            cut.graph.node.remove(node)
    batch, height, width, channels = (
        size.dim_param or size.dim_value for size in cut.graph.input[0].type.tensor_type.shape.dim
    )
    shape = [batch, channels, height, width]
    cut.graph.input[0].CopyFrom(helper.make_tensor_value_info(stop.output[0], onnx.TensorProto.FLOAT, shape))
    return from_bytes, cut.SerializeToString()


def opened(model: bytes, engine: str) -> Runtime:
    """A model on one thread."""
    return backend(engine)(Artifact("onnx", model), RuntimeOptions(threads=1))


def forms(network: Network, data: Path) -> dict[str, bytes]:
    """A network in INT8 and otherwise, in ONNX."""
    loaded = load_model(network.model, weights=network.weights)
    assert network.spec is not None
    fp32 = canonical(loaded, network.spec).model
    samples = draw_samples(split(network, data).calibration, network.spec, CALIBRATION_IMAGES).images
    small = Int8Builder(fp32, samples, method="minmax", threads=1).build("cpu")
    apart, floats = quantised_apart(fp32, samples)
    return {
        "bytes": small,
        "pixel by pixel": unpack_pixels(small),
        "floats": floats,
        "unfolded": unfolded(small, fp32),
        "apart": apart,
        "fp32": fp32,
    }


@dataclass(frozen=True)
class Figures:
    """One network in one engine.

    Attributes:
        speed: On bytes, against floats.
        single: The same, against pixel by pixel.
        same: Share of images that are decided as unfolded.
        kept, kept_apart: Share that is decided as in fp32; the latter quantised without folding.
    """

    speed: SpeedComparison
    single: SpeedComparison
    same: float
    kept: float
    kept_apart: float


def compared(engine: str, models: dict[str, bytes], images: Images) -> Figures:
    """Run the forms of a network."""
    with ExitStack() as stack:
        runtimes = {name: stack.enter_context(opened(model, engine)) for name, model in models.items()}
        floats = images[:1].transpose(0, 3, 1, 2).astype(np.float32) / 64 - 2

        def call(name: str) -> Callable[[], object]:
            feed = floats if name == "floats" else images[:1]
            return partial(runtimes[name].run, {runtimes[name].inputs[0].name: feed})

        speed, single = (
            compare_speed(call("bytes"), call(name), seconds=SECONDS) for name in ("floats", "pixel by pixel")
        )
        decided = {name: decisions(runtimes[name], images) for name in ("bytes", "unfolded", "apart", "fp32")}

    def share(one: str, other: str) -> float:
        return float(np.mean(decided[one] == decided[other]))

    return Figures(speed, single, share("bytes", "unfolded"), share("bytes", "fp32"), share("apart", "fp32"))


def section(data: Path) -> tuple[str, bool]:
    """Its part of the page, and whether a goal is missed."""
    rows, misses = [], []
    for network in networks(data):
        if network.key not in NETWORKS:
            continue
        print(f"first layer: {network.name}", file=sys.stderr)
        models = forms(network, data)
        frames = labelled(network.images, data)[0]
        assert network.spec is not None
        images = draw_samples(frames, network.spec, len(frames)).images
        for engine, name in ENGINES.items():
            found = compared(engine, models, images)
            ratio, where = found.speed.ratio, f"{network.name} in {name}"
            if ratio > LARGEST_RATIO:
                misses.append(f"{where}: {ratio:.3f} times as long, the most is {LARGEST_RATIO}")
            if found.same < LEAST_SAME:
                misses.append(f"{where}: {found.same:.2%} decided as unfolded, the least is {LEAST_SAME:.1%}")
            rows.append(
                [
                    network.name,
                    name,
                    f"{found.speed.reference_ms:.2f}",
                    f"{found.speed.candidate_ms:.2f}",
                    f"{ratio:.2f}×",
                    f"{found.single.ratio:.2f}×" if engine == "ort" else "–",
                    f"{found.same:.2%}",
                    f"{found.kept:.2%}",
                    f"{found.kept_apart:.2%}",
                ]
            )
    header = [
        "network",
        "engine",
        "floats in ms",
        "bytes in ms",
        "bytes to floats",
        "to pixel by pixel",
        "as unfolded",
        "as fp32",
        "not folded, as fp32",
    ]
    listed = "\n".join(f"- Goal missed: {miss}." for miss in misses)
    text = f"""## INT8 on bytes

INT8 as bundles hold it, on the bytes of an image, beside the same network without preprocessing, which is handed a
float tensor that is normalised already. One image, one thread, medians of turns. *Pixel by pixel* is the same file with
its first convolution as it was before it took four pixels at a time, as which OpenVINO always runs it.

{len(images)} photographs are decided *as unfolded* where the same weights behind preprocessing in float, with a border of
zeros, choose the same class. The last columns say how many are decided as in fp32: by INT8 as it is, and by INT8 that
was quantised with nothing folded.

{table(header, rows)}

Goals: at most {LARGEST_RATIO} times as long as on floats; {LEAST_SAME:.1%} decided as unfolded.
{listed}

A border of zeros is the pixel 127.5 where the mean is 0.5, and bytes are whole. INT8 decides an image otherwise for less:
without a border (SqueezeNet) there is nothing but the rounding of float32.
"""
    return text, bool(misses)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    text, missed = section(data_folder(parser.parse_args(arguments).data))
    print(text)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
