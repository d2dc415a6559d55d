"""A hash of a plugin's source that comments, layout, docstrings and Python versions leave alone."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Every trial lists all plugins, and many share their parts: each text is taken apart only once.
_once = functools.lru_cache(maxsize=1000)


def parse(path: Path) -> ast.Module:
    """Returns the syntax tree of a file as it is on disk now; it is shared, so leave it as it is.

    Raises OSError or SyntaxError when the file cannot be read or parsed.
    """
    return _parse(path.read_bytes(), str(path))


@_once
def _parse(source: bytes, name: str) -> ast.Module:
    return ast.parse(source, name)


def parts(path: Path) -> list[Path]:
    """Returns the plugin's file and every `_*.py` beside it that it imports, transitively."""
    found = [path]
    for file in found:  # grows while we walk it
        for stem in imported_parts(parse(file)):
            part = file.parent / f"{stem}.py"
            if part not in found:
                found.append(part)
    return [found[0], *sorted(found[1:])]


def imported_parts(tree: ast.Module) -> set[str]:
    """Returns the stems of the shared parts (`from ._gates import x`, `from . import _gates`)."""
    stems: set[str] = set()
    for node in relative_imports(tree):
        if node.level == 1:
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            stems.update(n for n in names if n.startswith("_"))
    return stems


@_once
def relative_imports(tree: ast.Module) -> tuple[ast.ImportFrom, ...]:
    """Returns every `from .x import y`, wherever it stands."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return tuple(node for node in found if node.level)


def source_hash(path: Path) -> str:
    """Returns 16 hex digits over the syntax trees of a plugin and its parts.

    Raises OSError or SyntaxError when a file cannot be read or parsed.
    """
    digest = hashlib.sha256()
    for file in parts(path):
        digest.update(f"{file.name}\n{_whole(parse(file))}\n".encode())
    return digest.hexdigest()[:16]


@_once
def _whole(tree: ast.Module) -> str:
    return _canonical(tree)


def _canonical(node: object) -> str:
    # Own walk rather than ast.dump: its output and its fields change from Python to Python. New
    # fields are empty on old code, so leaving empty ones out makes 3.11 to 3.14 agree.
    if isinstance(node, ast.AST):
        fields = (
            f"{name}={_canonical(value)}"
            for name, value in sorted(_fields(node))
            if not _empty(value)
        )
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(_canonical(item) for item in node if not _docstring(item))}]"
    # ascii: what repr escapes depends on the Unicode table of the Python.
    return f"{type(node).__name__}:{node!a}"


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.JoinedStr) and name == "values":
            value = _joined(value)
        if not (isinstance(node, ast.Constant) and name == "kind"):  # u"x" is "x"
            yield name, value


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    # How the text of an f-string is cut into constants differs from Python to Python.
    joined: list[ast.expr] = []
    for value in values:
        last = joined[-1] if joined else None
        if not isinstance(value, ast.Constant):
            joined.append(value)
        elif isinstance(last, ast.Constant):
            joined[-1] = ast.Constant(str(last.value) + str(value.value))
        elif value.value:
            joined.append(value)
    return joined


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(_docstring(item) for item in value))


def _docstring(item: object) -> bool:
    # A string that stands alone does nothing, wherever it stands.
    return (
        isinstance(item, ast.Expr)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
    )
