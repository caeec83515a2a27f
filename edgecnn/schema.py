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

from edgecnn.errors import SpecError, first_line

__all__ = ["check_types", "demand", "readable", "table_of"]

TABLE_BYTES_MAX = 1 << 20
# the parser of TOML takes the square of the parts of a dotted key: 20,000 are 6 seconds
TOML_DOTS_MAX = 10_000


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
    text, _, path = first_line(error).partition(" - at `$")
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
        SpecError: The file is missing, is neither, or is larger than any spec.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise SpecError(f"{path}: cannot be read as a spec (not a file)")
        with path.open("rb") as file:
            data = file.read(TABLE_BYTES_MAX + 1)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read as a spec ({error.strerror})") from error
    if len(data) > TABLE_BYTES_MAX:
        raise SpecError(f"{path}: more than {TABLE_BYTES_MAX} bytes, which no spec has")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: cannot be read as a spec (not UTF-8 text)") from error
    try:
        if path.suffix.lower() == ".toml":
            if text.count(".") > TOML_DOTS_MAX:
                raise SpecError(f"{path}: more than {TOML_DOTS_MAX} dots; write so long a spec as .json")
            return tomllib.loads(text)
        if path.suffix.lower() == ".json":
            return msgspec.json.decode(text)
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not valid {path.suffix[1:].upper()} ({first_line(error)})") from error
    raise SpecError(f"{path}: a spec is a .toml or .json file")
