"""Packages that bring plugins by entry points, written into a folder as pip would."""

from __future__ import annotations

from pathlib import Path

CELL = '''"""A made-up cell.

Paper: Nobody et al. 2026, arXiv 2601.00001. It differs in all.
"""

import torch

from ._gates import GAIN


class Cell(torch.nn.Module):
    gain = GAIN

    def __init__(self, input_size: int, hidden_size: int, *, zc: float = 0.5) -> None:
        super().__init__()

    def initial_state(self, batch_size): ...
    def forward(self, x, state, noise): ...
'''
BOMB = "raise SystemExit('the package was imported')\n"


def package(site: Path, points: str, version: str = "1.2", name: str = "mycells") -> Path:
    """Installs a package by hand: a cell `made_up` with a part, and these entry points."""
    folder = site / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(BOMB)
    (folder / "made_up.py").write_text(CELL)
    (folder / "_gates.py").write_text("GAIN = 2\n")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)
    return folder


def cells(line: str) -> str:
    return f"[console_scripts]\nother = mycells.other:main\n\n[bench.cells]\n{line}\n"
