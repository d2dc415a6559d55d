"""The figures that others published: typed strictly, seen, none twice, found where they fit."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench.plugins import find, published
from bench.plugins.published import EVALUATIONS, FILE, MARKS, Published
from tests.conftest import Verb

ROWS = published.published()
TRIAL: dict[str, Any] = {
    "corpus": "ptb", "nhid": 650, "nlayers": 2, "tied": True, "dropout": 0.5,
}  # fmt: skip


def raw() -> list[dict[str, str]]:
    with FILE.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        assert reader.fieldnames == [field.name for field in dataclasses.fields(Published)]
        return list(reader)


def test_every_row_is_typed_seen_and_of_a_plugin_we_have() -> None:
    registry = find()
    assert len(ROWS) > 80
    assert {row.mark for row in ROWS} == set(MARKS) == {"V1", "V2"}
    assert {row.evaluation for row in ROWS} == set(EVALUATIONS)
    for row in ROWS:
        assert row.corpus in ("ptb", "wikitext-2"), row
        assert row.cell == "" or row.cell in registry["cell"], row
        assert row.regularizer == "" or row.cell, f"a regularizer of no cell: {row}"
        assert all(n in registry["regularizer"] for n in row.regularizer.split("+") if n), row
        assert row.regularizer == "+".join(sorted(row.regularizer.split("+"))), row
        assert row.nhid is None or 50 <= row.nhid <= 3000, row
        assert row.nlayers is None or 1 <= row.nlayers <= 10, row
        assert row.num_params_millions is None or 1 < row.num_params_millions < 200, row
        scores = [s for s in (row.valid_ppl, row.test_ppl) if s is not None]
        assert row.test_ppl is not None and all(40 < s < 250 for s in scores), row
        words = (row.model, row.source, row.note)
        assert all(word == word.strip() for word in words) and "\n" not in "".join(words), row


def test_figures_stand_once() -> None:
    keys = [
        (r["model"], r["corpus"], r["nhid"], r["num_params_millions"], r["source"], r["note"])
        for r in raw()
    ]
    assert len(keys) == len(set(keys))
    scores = [(r["corpus"], r["valid_ppl"], r["test_ppl"], r["source"]) for r in raw()]
    assert len(scores) == len(set(scores))


def test_no_cell_of_the_table_is_a_formula() -> None:
    """A spreadsheet runs what begins like one."""
    assert not [v for row in raw() for v in row.values() if v.startswith(("=", "+", "-", "@"))]


def test_what_is_only_remembered_is_left_out() -> None:
    """Figures that nobody saw in print, and bits per character."""
    assert not {92.3, 87.7} & {v for row in ROWS for v in (row.valid_ppl, row.test_ppl)}
    qrnn = [row for row in ROWS if row.cell == "qrnn"]
    assert qrnn and not {78.3, 79.9} & {row.test_ppl for row in qrnn}
    wikitext = [row for row in ROWS if row.corpus == "wikitext-2"]
    assert (73.2, 70.1) not in [(row.valid_ppl, row.test_ppl) for row in wikitext]
    assert min(row.test_ppl or 0 for row in ROWS) > 50  # bits per character are below 2


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (",V1,", ",R,", "mark 'R'"),
        (",plain,", ",dynamic,", "evaluation 'dynamic'"),
        (",2,200,true", ",two,200,true", "invalid literal for int() with base 10: 'two'"),
        (",2,200,true", ",2,200,yes", "'yes'"),
        (",,87.17,", ",,about 87,", "could not convert string to float: 'about 87'"),
        (",,87.17,", ",,,", "a row needs a perplexity"),
        (",lstm,none,ptb", ",lstm,none,", "model, corpus, objective and source must be given"),
    ],
)
def test_a_row_that_is_not_as_it_must_be_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, line: str
) -> None:
    path = tmp_path / "published.csv"
    first, second, rest = FILE.read_text().split("\n", 2)
    assert old in second
    path.write_text(f"{first}\n{second.replace(old, new, 1)}\n{rest}")
    monkeypatch.setattr(published, "FILE", path)
    with pytest.raises(ValueError, match=r"published\.csv:2: ") as error:
        published.published()
    assert line in str(error.value)


# --- where one stands beside ours -----------------------------------------------------------------


def beside(cell: str, regularizer: str = "none", **trial: Any) -> set[float | None]:
    return {row.test_ppl for row in ROWS if row.agrees(cell, regularizer, TRIAL | trial)}


def test_a_row_stands_beside_trials_of_its_size_depth_and_tying() -> None:
    assert beside("lstm") == {75.96, 75.4}
    assert beside("lstm", tied=False) == {80.97, 82.7, 76.81}
    assert beside("lstm", tied=False, dropout=0.0) == {128.97}
    assert beside("lstm", tied=False, dropout=0.0, dropoute=0.1) == {80.97, 82.7, 76.81}
    assert beside("lstm", corpus="wikitext-2") == {86.68, 86.91}
    assert beside("lstm", nhid=200) == {87.17}
    assert beside("lstm", nlayers=3) == set()
    assert beside("lstm", "ar") == beside("gru") == beside("lstm", nhid=651) == set()
    assert beside("lstm_variational") == {73.9}, "the one with the reused embedding"
    assert beside("lstm_variational", objective="augmented:gamma=0.4") == {73.2}
    assert beside("lstm_zoneout", tied=False) == {75.45}
    awd = beside("lstm_weightdrop", "ar+tar", nhid=1150, nlayers=3)
    assert {57.3, 58.8} <= awd and 52.8 not in awd, "a continuous cache is not comparable"


# --- in `bench.plugins show` ----------------------------------------------------------------------


def test_show_lists_what_was_published(verb: Verb) -> None:
    out = verb("plugins", "show", "lstm").out
    lines = [line.split() for line in out.splitlines()]
    assert ["ptb", "650", "–", "75.96", "V1"] in [line[:5] for line in lines]
    assert ["wikitext-2", "650", "91.70", "86.68", "V1"] in [line[:5] for line in lines]
    squeezed = " ".join(out.split())
    assert "pytorch/examples issue #281" in squeezed
    assert "Published elsewhere, under other protocols" in squeezed
    assert max(map(len, out.splitlines())) <= 100
    tar = verb("plugins", "show", "tar").out
    assert "57.30" in tar and "75.96" not in tar
    assert "Published elsewhere" not in verb("plugins", "show", "rnn_tanh").out
