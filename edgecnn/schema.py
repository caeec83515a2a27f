"""Structs whose fields are checked one by one, with messages that name the field; files that hold them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecnn.errors import SpecError

__all__ = ["check_types", "demand", "readable", "table_of"]


def check_types(struct: msgspec.Struct) -> None:
    """Give each field its declared type (a list becomes a tuple) or say which field cannot have it."""
    for field in msgspec.structs.fields(struct):
        try:
            value = msgspec.convert(getattr(struct, field.name), field.type)
        except msgspec.ValidationError as error:
            raise SpecError(readable(error, field.name, type(struct))) from error
        msgspec.structs.force_setattr(struct, field.name, value)


def readable(error: msgspec.ValidationError, field: str, struct: type[msgspec.Struct]) -> str:
    """msgspec's message with the field in front and, where there are few, the values it may have."""
    text, _, path = str(error).partition(" - at `$")
    field = f"{field}{path.rstrip('`')}".strip(".")
    kind = {f.name: f.type for f in msgspec.structs.fields(struct)}.get(field)
    if text.startswith("Invalid enum value"):
        text += f"; it can be {', '.join(_choices(kind))}"
    return f"{field}: {text}" if field else text


def _choices(kind: Any) -> list[str]:
    """The strings of a Literal, also inside an optional one."""
    return [text for arg in get_args(kind) for text in ([arg] if isinstance(arg, str) else _choices(arg))]


def demand(condition: bool, message: str) -> None:
    """Raise a `SpecError` where a condition does not hold."""
    if not condition:
        raise SpecError(message)


def table_of(path: Path) -> Any:
    """What a ``.toml`` or ``.json`` file holds, as plain data.

    Raises:
        SpecError: The file is missing or is neither.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SpecError(f"{path}: cannot be read as a spec ({reason})") from error
    try:
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text)
        if path.suffix.lower() == ".json":
            return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    raise SpecError(f"{path}: a spec is a .toml or .json file")
