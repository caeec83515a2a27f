"""Mutants of real files: damage to their bytes, and changes that keep their form so that parsers go deeper.

A mutant is given by its parser, a seed and its number alone: a run can be resumed, and a mutant made again.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["damaged", "in_json", "in_npz", "in_onnx", "in_png", "mutant"]

Change = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
WORDS = (
    b"",
    b"\0",
    b"\n",
    b"../",
    b"/etc/passwd",
    b"%s%n",
    b"\xff\xff\xff\xff",
    b"[" * 200,
    b"{" * 200,
    b"1e999",
)
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**63),
        2**64,
        10**30,
        0.0,
        -0.5,
        1e308,
        "",
        "\n",
        "\0",
        "é\u202e",
    ),
    *("../x", "/x", "a\\b", "fp32", "batch", [], {}, [[]], [None], {"": 0}, "x" * 5000, [0] * 2000, "\ud7ff"),
)


def mutant(seeds: Sequence[bytes], changes: Sequence[Change], name: str, seed: int, number: int) -> bytes:
    """One mutant; changes that a seed is not fit for leave it as it is."""
    rng = random.Random(f"{name} {seed} {number}")
    data = rng.choice(seeds)
    if changes and rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = rng.choice(changes)(data, rng)
        if rng.random() < 0.8:
            return data
    return damaged(data, rng, seeds)


def damaged(data: bytes, rng: random.Random, seeds: Sequence[bytes] = ()) -> bytes:
    """Bytes flipped, overwritten, cut out, repeated, inserted, cut off, or joined with another file's."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 40))):
        size = len(changed)
        # headers decide what is read of the rest
        place = rng.randrange(min(size, 64) if rng.random() < 0.4 else size) if size else 0
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 500)), size - place)
        kind = rng.randrange(9)
        if kind == 0 and size:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(NUMBERS) % 256**width
            changed[place : place + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 2, 30))
        elif kind == 5:
            changed[place:place] = rng.choice(WORDS)
        elif kind == 6:
            changed[place : place + length] = rng.randbytes(length)
        elif kind == 7 and rng.random() < 0.3:
            del changed[place:]
        elif kind == 8 and seeds:
            other = rng.choice(seeds)
            start = rng.randrange(len(other)) if other else 0
            changed[place:] = other[start:]
    return bytes(changed[: 1 << 18])


def in_json(data: bytes, rng: random.Random) -> bytes:
    """A value somewhere in the tree becomes another; a key is renamed, removed, or given twice."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    if not places:
        return data
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[str(rng.choice(ODD))] = node.pop(key)
    elif kind == 2:
        other, where = rng.choice(places)
        if where in other if isinstance(other, dict) else where < len(other):
            node[key] = json.loads(json.dumps(other[where]))
    elif kind == 3 and isinstance(node[key], list):
        node[key] = node[key] * rng.choice((2, 50))
    else:
        node[key] = rng.choice(ODD)
    return json.dumps(tree).encode()


def in_png(data: bytes, rng: random.Random) -> bytes:
    """A chunk of a PNG is damaged, dropped or doubled, and its checksum is right again."""
    if not data.startswith(b"\x89PNG"):
        return data
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return data
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    way = rng.randrange(4)
    if way == 0:
        chunks.insert(rng.randrange(len(chunks)), (kind, body))
    elif way == 1:
        del chunks[index]
    elif way == 2:
        chunks[index] = (kind, damaged(body, rng))
    else:
        with_text = rng.choice((b"tEXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"gAMA", b"acTL", b"fcTL"))
        chunks.insert(rng.randrange(len(chunks)), (with_text, rng.randbytes(rng.choice((0, 1, 26, 768)))))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def in_npz(data: bytes, rng: random.Random) -> bytes:
    """A member of the archive is damaged, most often in its header, and packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # a mutant of a mutant need not be an archive any more
        return data
    if not members:
        return data
    name = rng.choice(sorted(members))
    content = members.pop(name)
    if rng.random() < 0.5:
        words = (
            b"'|O'",
            b"'<f8'",
            b"'|S0'",
            b"'<M8[ns]'",
            b"(1,)",
            b"(-1, 2)",
            b"(10000000000,)",
            b"()",
            b"True",
        )
        old = rng.choice((b"'|u1'", b"(", b")", b"shape", b"False", b","))
        content = content.replace(old, rng.choice(words), 1)
    else:
        content = damaged(content, rng)
    members[rng.choice((name, name, "n", "../x.npy", "x/", name * 2))] = content
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    ) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    return buffer.getvalue()


def in_onnx(data: bytes, rng: random.Random) -> bytes:
    """A field of the model, wherever it stands, takes another value; or an element goes, or comes twice."""
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's own class differs between its implementations
        return data
    messages, waiting = [], [model]
    while waiting:
        message = waiting.pop()
        messages.append(message)
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting += list(value) if field.is_repeated else [value]
    message = rng.choice(messages)
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return data
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        index = rng.randrange(len(value))
        way = rng.randrange(3)
        if way == 0:
            del value[index]
            return model.SerializeToString()
        if way == 1 or field.type == field.TYPE_MESSAGE:
            value.append(value[index])
            return model.SerializeToString()
        value[index] = _other(field, value[index], rng, model)
    elif field.type == field.TYPE_MESSAGE:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _other(field, value, rng, model))
    return model.SerializeToString()


def _other(field: Any, value: Any, rng: random.Random, model: Any) -> Any:
    if isinstance(value, bool | int):
        wide = field.type in (field.TYPE_INT64, field.TYPE_UINT64)
        number = rng.choice((*NUMBERS, value + 1, value * 2, rng.randrange(30)))
        if field.type == field.TYPE_ENUM:
            return rng.choice([each.number for each in field.enum_type.values])
        return max(-(2 ** (63 if wide else 31)), min(number, 2 ** (63 if wide else 31) - 1))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e30, float("inf"), float("nan")))
    if isinstance(value, bytes):
        return damaged(value, rng)
    names = [name for node in model.graph.node for name in (*node.input, *node.output, node.op_type)]
    ops = (
        "Conv",
        "Loop",
        "If",
        "Reshape",
        "Gather",
        "Resize",
        "Einsum",
        "TopK",
        "NonMaxSuppression",
        "Tile",
        "Pad",
    )
    return rng.choice((*names, *ops, "", "x", "ai.onnx.ml"))
