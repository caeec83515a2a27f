"""Every package that the converters import is one that their extra brings."""

from __future__ import annotations

import ast
import re
import sys

from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_imports_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = [*project["dependencies"], *project["optional-dependencies"]["convert"]]
    declared = {re.split(r"[\[>=<; ]", entry)[0].replace("-", "_") for entry in brought}
    imported = set()
    for path in (ROOT / "converters").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                imported.add(node.args[0].value.split(".")[0])
    assert {"onnx", "onnx_ir", "torch", "safetensors"} <= imported
    assert imported - set(sys.stdlib_module_names) - declared - {"edgecnn"} == set()
