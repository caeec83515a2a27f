"""What TensorRT would misread or silently accept in an ONNX model, found before it sees the model.

Its parser opens files that a model names as the place of its weights, reads uint8 codes as int8 with a
warning at most, and takes bytes of anything for an empty network. This reads the model's protobuf by
itself: a device that builds engines has no onnx, and nothing of TensorRT runs until the model is known.
Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecnn.converters.base import model_errors
from edgecnn.errors import ModelError

__all__ = ["End", "check_model"]

# field number → its values in order: whole numbers, or the bytes of strings and messages
Message = dict[int, list[Any]]

# numpy's names of ONNX's element types, as far as a network can take or give them
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    16: "bfloat16",
    21: "uint4",
}
UINT8, EXTERNAL = 2, 1
# int8, and the 8 and 4 bit kinds of newer versions: float8e4m3fn, int4, float4e2m1
QUANTIZED = {3, 17, 22, 23}
STANDARD = {"", "ai.onnx"}
# the number of boxes or places is known only after they ran, and no engine can be built from that
COUNTING = {"NonMaxSuppression", "NonZero"}


@dataclass(frozen=True)
class End:
    """An input or output of a model: its name, and numpy's name of its dtype."""

    name: str
    dtype: str


def check_model(model: bytes) -> tuple[list[End], list[End]]:
    """Refuse a model that TensorRT would read in another way than it is meant.

    Returns:
        Its inputs and its outputs.

    Raises:
        ModelError: Not an ONNX model; weights in other files; numbers that are not int8 with zero point 0;
            a uint8 input that is not cast first; operations that no engine is built from.
    """
    with model_errors("not an ONNX model that TensorRT can read"):
        message = _message(memoryview(model))
        if 7 not in message:
            raise ModelError("not an ONNX model: it holds no graph; export it again")
        # protobuf reads several as one, joined
        graph = _message(memoryview(b"".join(message[7])) if len(message[7]) > 1 else message[7][0])
        functions = [_function(each) for each in message[25]]
        graphs = [inner for each in (graph, *functions) for inner in _graphs(each)]
        for each in graphs:
            _check_whole(each)
        for each in graphs:
            _check_nodes(each)
        constants = {_text(tensor, 8) for tensor in map(_message, graph[5])}
        inputs = [end for end in map(_end, graph[11]) if end.name not in constants]
        for each in _graphs(graph):
            _check_uint8(each, {end.name for end in inputs if end.dtype == "uint8"})
        return inputs, [_end(each) for each in graph[12]]


def _message(data: memoryview) -> Message:
    """The fields of a protobuf message (https://protobuf.dev/programming-guides/encoding)."""
    found: Message = defaultdict(list)
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        value: int | memoryview | None = None
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + size], at + size
        if value is None or at > len(data):
            raise ModelError("not an ONNX model, or cut short; export it again")
        found[key >> 3].append(value)
    return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ModelError("not an ONNX model, or cut short; export it again")


def _text(message: Message, field: int) -> str:
    return bytes(message[field][-1]).decode(errors="replace") if message[field] else ""


def _texts(message: Message, field: int) -> list[str]:
    return [bytes(each).decode(errors="replace") for each in message[field]]


def _number(message: Message, field: int) -> int:
    return int(message[field][-1]) if message[field] else 0


def _function(data: memoryview) -> Message:
    """A function of the model in the form of a graph: its nodes are under another number."""
    found = _message(data)
    return defaultdict(list, {1: found[7]})


def _graphs(graph: Message) -> Iterator[Message]:
    """A graph and those of its branches and loops."""
    yield graph
    for node in map(_message, graph[1]):
        for attribute in map(_message, node[5]):
            for inner in (*attribute[6], *attribute[11]):
                yield from _graphs(_message(inner))


def _check_whole(graph: Message) -> None:
    """No weights in other files: TensorRT opens them wherever they are, through links as well."""
    sparse, tensors = list(graph[15]), list(graph[5])
    for node in map(_message, graph[1]):
        for attribute in map(_message, node[5]):
            tensors += [*attribute[5], *attribute[10]]
            sparse += [*attribute[22], *attribute[23]]
    for each in map(_message, sparse):
        tensors += [*each[1], *each[2]]
    for tensor in map(_message, tensors):
        if tensor[13] or _number(tensor, 14) == EXTERNAL:
            places = {_text(entry, 1): _text(entry, 2) for entry in map(_message, tensor[13])}
            raise ModelError(
                f"{_text(tensor, 8)}: its values are in another file ({places.get('location', 'unnamed')}), "
                "which is not read; save the model with its weights inside"
            )


def _check_nodes(graph: Message) -> None:
    constants = {_text(tensor, 8): tensor for tensor in map(_message, graph[5])}
    for node in map(_message, graph[1]):
        op = _text(node, 4)
        if _text(node, 7) not in STANDARD:
            continue
        if op == "Constant":
            held = [tensor for attribute in map(_message, node[5]) for tensor in attribute[5]]
            constants.update((name, _message(tensor)) for name in _texts(node, 2) for tensor in held)
        elif op in COUNTING:
            raise ModelError(
                f"{_called(node)}: TensorRT builds no engine with it; keep it outside of the model"
            )
        elif op in ("QuantizeLinear", "DequantizeLinear"):
            _check_quantized(node, op, constants)


def _check_quantized(node: Message, op: str, constants: dict[str, Message]) -> None:
    """Codes must be what TensorRT takes them for: it reads uint8 as int8 without more than a warning."""
    given = [*_texts(node, 1), "", "", ""]
    zero = constants.get(given[2])
    if zero is not None:
        kind = _number(zero, 2)
    elif op == "QuantizeLinear" and not given[2]:
        chosen = [_number(each, 3) for each in map(_message, node[5]) if _text(each, 1) == "output_dtype"]
        kind = chosen[0] if chosen and chosen[0] else UINT8
    elif given[0] in constants:
        kind = _number(constants[given[0]], 2)
    else:
        return
    if kind not in QUANTIZED:
        raise ModelError(
            f"{_called(node)}: TensorRT quantises to int8, this is {_dtype(kind)}; make an INT8 model with "
            "the placement tensorrt: int8, zero point 0, biases in float"
        )
    # packed or raw, a zero is bytes of 0 alone
    if zero is not None and any(
        any(each) if isinstance(each, memoryview) else each for each in zero[5] + zero[9]
    ):
        raise ModelError(
            f"{_called(node)}: TensorRT quantises with zero point 0 only, this has another one; make an INT8 "
            "model with the placement tensorrt"
        )


def _check_uint8(graph: Message, inputs: set[str]) -> None:
    for node in map(_message, graph[1]):
        for name in inputs.intersection(_texts(node, 1)):
            if _text(node, 4) != "Cast":
                raise ModelError(
                    f"{_called(node)}: TensorRT can only cast a uint8 input, and this reads {name} as it is; "
                    "convert the model again, which puts the Cast first"
                )


def _called(node: Message) -> str:
    name = _text(node, 3) or f"node of {' '.join(_texts(node, 2))}"
    return f"{name} ({_text(node, 4)})"


def _end(value: memoryview) -> End:
    """Name and element type of a ValueInfoProto of a tensor."""
    info = _message(value)
    kind = 0
    for each in map(_message, info[2]):
        for tensor in map(_message, each[1]):
            kind = _number(tensor, 1)
    return End(_text(info, 1), _dtype(kind))


def _dtype(kind: int) -> str:
    return DTYPES.get(kind, f"type {kind}")
