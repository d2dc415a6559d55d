"""The hash of a plugin's source: what changes it, what does not, and on which Pythons."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.plugins import source_hash
from bench.plugins.source_hash import parts

SOURCE = '''\
"""A cell."""

from __future__ import annotations

import torch


class Cell(torch.nn.Module):
    """One layer."""

    def __init__(self, input_size: int, hidden_size: int, *, gain: float = 0.5) -> None:
        """Builds it."""
        super().__init__()
        self.gain = gain * (2 + hidden_size)

    def forward(self, x, state, noise):
        label = "raw"
        if noise is None:
            return x[:, 1:], state
        return self.gain + x, state, label
'''

# What one author might write in another year; every line stands for one kind of syntax.
F_STRINGS = """\
def show(x, width, prec, y, u):
    a = f"{x}" f"{y!r}" "tail"
    b = f"{x!r:>{width}}"
    c = f"{x:{width}.{prec}f}{y=}"
    d = f"{x:}{{literal}}" + f"" + f"plain"
    e = u"unicode" f"{u}" u"again" + rb"\\x00".decode()
    return a, b, c, d, e, "\\U0001fae8 \\ud800 \\xa0", 1e-7, 2.0, 10**20, 3j, ..., None, True
"""
MODERN = """\
from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Point:
    names: ClassVar[tuple[str, ...]] = ("x", "y")
    x: int | None = None
    kind: Literal["a", "b"] = "a"
    more: list[dict[str, "Point"]] = field(default_factory=list)

    @property
    def size(self) -> float: return abs(self.x or 0)


async def walk(points, /, *rest, key=None, **options):
    async with asyncio.timeout(1) as limit, options["lock"]:
        async for point in points:
            yield await point
    if (count := len(rest)) > 1 and not limit:
        raise ValueError("no") from None
    assert [n async for n in points if n], {**options, "n": count}


def sort(value):
    match value:
        case None | True: return 0
        case Point(x=0, kind=kind) if kind: return 1
        case {"a": 1, **others}: return others
        case [first, *_, -1.5] | (first, "b"): return first
        case str() as text: return text
        case _: return 2
"""
STATEMENTS = """\
import os, sys as system
from . import *


class A(dict, metaclass=type): x: int; y: int = 1


def f(a, b=1, *, c=lambda q, *r: (yield), d: int = -2) -> "A":
    global G; G = a
    del a[1:2, ::3, ...], b.c
    for i, *j in zip(a, b): continue
    else: pass
    while not a or b and c: break
    try:
        with open(a) as h, h: h @= b
    except* (OSError, ValueError) as e: raise
    else: a = b = c if d else {1, 2}
    finally: a <<= 1
    def g(): nonlocal b; b = {k: v for k, v in a if k}; yield from b
    return 1 < a <= 2 is not b, a not in b, ~a, +b, [*a, *b], {**a}, print(*a, **b, sep="")


try: pass
except Exception: pass
"""


def hash_of(folder: Path, source: str, name: str = "cell") -> str:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8", errors="surrogatepass")
    return source_hash(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        super().__init__()", "        # a comment\n        super().__init__()  # one"),
        ("import torch\n", "\n\nimport torch\n\n\n"),
        ('"""A cell."""', '"""Another cell, told at length.\n\nIn paragraphs.\n"""'),
        ('"""A cell."""\n', ""),
        ('    """One layer."""\n', ""),
        ('        """Builds it."""\n', ""),
        ('        label = "raw"\n', '        label = "raw"\n        "a bare string"\n'),
        ('"raw"', "'raw'"),
        ('"raw"', '"""raw"""'),
        ('"raw"', '"r" "aw"'),
        ('"raw"', 'u"raw"'),
        ("0.5", "5e-1"),
        ("gain * (2 + hidden_size)", "(gain) * ((2 + (hidden_size)))"),
        ("return x[:, 1:], state", "return (x[:, 1:], state,)"),
        ("gain: float = 0.5)", "\n        gain: float = 0.5,\n    )"),
        ("    ", "\t"),
        ("\n", "\r\n"),
    ],
)
def test_layout_comments_and_docstrings_change_nothing(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    assert hash_of(tmp_path, changed) == hash_of(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.25"),  # a default
        ("2 + hidden_size", "3 + hidden_size"),  # a constant
        ("2 + hidden_size", "2 - hidden_size"),  # an operator
        ("gain * (2 + hidden_size)", "gain * 2 + hidden_size"),  # parentheses that count
        ("label", "title"),  # a name
        ("hidden_size", "hidden"),
        ("gain: float", "gain: int"),  # an annotation
        ('"raw"', '"Raw"'),
        ('"raw"', 'b"raw"'),
        ("2 + hidden_size", "2.0 + hidden_size"),
        ("None:\n", "True:\n"),
        ("is None", "is not None"),
        ("x[:, 1:]", "x[:, :1]"),
        ("class Cell(torch.nn.Module)", "@final\nclass Cell(torch.nn.Module)"),
        ("            return x[:, 1:], state\n        return", "            pass\n        return"),
        ("import torch\n", "import torch\nimport math\n"),
    ],
)
def test_whatever_can_move_a_number_changes_it(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    ast.parse(changed)
    assert hash_of(tmp_path, changed) != hash_of(tmp_path, SOURCE)


def test_the_name_of_the_file_counts(tmp_path: Path) -> None:
    assert hash_of(tmp_path, SOURCE, "one") != hash_of(tmp_path, SOURCE, "two")


@pytest.mark.parametrize(
    "statement",
    ["from ._gates import gate", "from . import _gates", "from ._gates import gate as g"],
)
def test_an_imported_part_counts_and_so_does_what_it_imports(
    tmp_path: Path, statement: str
) -> None:
    cell = f"def build():\n    {statement}\n"
    (tmp_path / "_gates.py").write_text("from ._maths import two\ngate = two\n")
    (tmp_path / "_maths.py").write_text("from ._gates import gate\ntwo = 2\n")  # a circle
    (tmp_path / "_other.py").write_text("three = 3\n")
    before = hash_of(tmp_path, cell)
    assert [p.name for p in parts(tmp_path / "cell.py")] == ["cell.py", "_gates.py", "_maths.py"]

    (tmp_path / "_other.py").write_text("three = 4\n")
    assert hash_of(tmp_path, cell) == before, "a part that nobody imports counts"
    (tmp_path / "_maths.py").write_text("from ._gates import gate\n# a comment\ntwo = 2\n")
    assert hash_of(tmp_path, cell) == before
    (tmp_path / "_maths.py").write_text("from ._gates import gate\ntwo = 3\n")
    assert hash_of(tmp_path, cell) != before, "a part of a part does not count"
    (tmp_path / "_maths.py").write_text("from ._gates import gate\ntwo = 2\n")
    assert hash_of(tmp_path, cell) == before
    (tmp_path / "_gates.py").write_text("from ._maths import two\ngate = two + 1\n")
    assert hash_of(tmp_path, cell) != before


@pytest.mark.parametrize(
    ("source", "golden"),
    [
        (F_STRINGS, "476b87427a41e705"),
        (MODERN, "fa9836004b6c598f"),
        (STATEMENTS, "c9f673ad2d5b54f8"),
    ],
    ids=["f-strings", "modern", "statements"],
)
def test_golden_hashes_hold_on_every_python(tmp_path: Path, source: str, golden: str) -> None:
    # The literals were computed on CPython 3.11, 3.12, 3.13 and 3.14, which cut f-strings into
    # constants, keep `kind` and print empty fields each in their own way.
    assert hash_of(tmp_path, source) == golden


def test_text_that_only_a_newer_unicode_knows_hashes_equally_everywhere(tmp_path: Path) -> None:
    # repr() of U+1FAE8 is the character itself from Unicode 15 on, an escape before.
    assert hash_of(tmp_path, "x = '\U0001fae8'\n") == hash_of(tmp_path, "x = '\\U0001fae8'\n")
    assert hash_of(tmp_path, "x = '\U0001fae8'\n") == "1b893c47569e4540"
