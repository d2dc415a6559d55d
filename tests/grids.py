"""Tiny grids, rogue plugins and ways to run the verbs, for tests of the whole path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import store
from bench.__main__ import run

ROOT = Path(__file__).parent.parent
TINY = """
base: {corpus: "synthetic:train=1500:valid=300:test=300", nhid: 10, batch_size: 5, bptt: 10,
       epochs: 2}
"""

_CELL = '''"""A tanh RNN that {what}."""

import os

import torch
from torch import nn

{top}


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        {init}
        self.rnn = nn.RNN(input_size, hidden_size)
        self.calls = 0

    def initial_state(self, batch_size: int):
        return (self.rnn.weight_hh_l0.new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x, state, noise):
        self.calls += 1
        {call}
        raw, h = self.rnn(x, state[0][None])
        return raw, (h[0],)
'''


def rogue(folder: Path, name: str, *, top: str = "", init: str = "", call: str = "") -> Path:
    """Writes a cell into a plugin folder; `call` runs at each forward."""
    path = folder / "cells" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _CELL.format(what=name, top=top, init=init or "pass", call=call or "pass")
    path.write_text(text)
    return path


def grid_file(folder: Path, axes: str, name: str = "tiny", extra: str = "") -> Path:
    """Writes a grid of tiny trials."""
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\n{TINY}\naxes: {axes}\n{extra}\n")
    return path


def bench(verb: str, *argv: object) -> int:
    """Runs a verb in this process and returns its exit code."""
    import importlib

    packages = ("plugins", "corpora", "store", "report")
    module = importlib.import_module(f"bench.{verb}" + (".__main__" if verb in packages else ""))
    with pytest.raises(SystemExit) as caught:
        run(module.app, [str(word) for word in argv], f"bench {verb}")
    return int(caught.value.code or 0)


def start(verb: str, *argv: object, **environment: str) -> subprocess.Popen[str]:
    """Starts a verb in a process group of its own, as a shell would."""
    return subprocess.Popen(
        [sys.executable, "-m", f"bench.{verb}", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,
        # Where the suite itself runs in a shell's background, SIGINT is ignored and inherited so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def results_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the records by run_id, in the columns two runs of one trial must agree on."""
    runs, problems = store.load_runs(folder)
    assert problems == []
    frame = runs[list(store.RESULT_COLUMNS)].astype(object)
    frame = frame.where(pd.notna(frame), None)
    rows: list[Any] = frame.to_dict("records")
    return {row["run_id"]: row for row in rows}


def curves_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the epoch records in the columns two runs of one trial must agree on."""
    curves, problems = store.load_epochs(folder)
    assert problems == []
    frame = curves[list(store.EPOCH_RESULT_COLUMNS)].astype(object)
    frame = frame.where(pd.notna(frame), None).sort_values(["run_id", "epoch"])
    rows: list[Any] = frame.to_dict("records")
    return rows


def assert_same(one: Path, other: Path, run_ids: Sequence[str] | None = None) -> None:
    """Asserts that two results folders agree, to the bit."""
    a, b = results_of(one), results_of(other)
    ids = sorted(a) if run_ids is None else run_ids
    assert ids and set(ids) <= set(b)
    for run_id in ids:
        assert a[run_id] == b[run_id]
    keep = set(ids)
    assert [r for r in curves_of(one) if r["run_id"] in keep] == [
        r for r in curves_of(other) if r["run_id"] in keep
    ]
