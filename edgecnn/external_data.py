"""Whether an ONNX model keeps weights in other files: read off its bytes, before any engine parses them.

A device has no onnx package, and engines open such files themselves, which no manifest lists. What is
walked through is protobuf's wire format (protobuf.dev, "Encoding") along the fields of onnx.proto in which
tensors can stand.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["external_tensor"]

# message → number of a field → the message that it holds
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_tensor(model: bytes) -> str | None:
    """Name of the first tensor whose values are in another file (perhaps empty); None where there is none.

    Args:
        model: An ONNX ModelProto.

    Raises:
        ValueError: The bytes are not protobuf.
    """
    view = memoryview(model)
    waiting = [("model", 0, len(model))]
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "tensor":
            name, external = "", False
            for number, wire, value, (first, last) in _fields(view, start, end):
                if number == _TENSOR_NAME and wire == _BYTES:
                    name = str(view[first:last], "utf-8", "replace")
                external |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            if external:
                return name
            continue
        inner = _FIELDS[kind]
        for number, wire, _, (first, last) in _fields(view, start, end):
            if wire == _BYTES and number in inner:
                waiting.append((inner[number], first, last))
    return None


def _fields(view: memoryview, place: int, end: int) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """The fields of a message: number, wire type, value of a varint (else 0), where its bytes are."""
    while place < end:
        key, place = _varint(view, place, end)
        number, wire, value, size = key >> 3, key & 7, 0, 0
        if wire == _VARINT:
            value, place = _varint(view, place, end)
        elif wire == _BYTES:
            size, place = _varint(view, place, end)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if not 0 < number < 2**29 or size > end - place:
            raise ValueError(f"a field that cannot be at byte {place}")
        yield number, wire, value, (place, place + size)
        place += size


def _varint(view: memoryview, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number without an end at byte {place}")
