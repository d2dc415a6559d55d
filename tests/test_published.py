"""The figures that others published: typed strictly, seen, none twice, found where they fit."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bench.config.trial import FIELDS
from bench.plugins import find, published
from bench.plugins.published import EVALUATIONS, FILE, MARKS, STRENGTHS, Published
from tests.conftest import Verb

ROWS = published.published()
TRIAL: dict[str, Any] = {
    "corpus": "ptb", "nhid": 650, "nlayers": 2, "tied": True, "dropout": 0.5, "dropoute": 0.1,
    "optimizer": "nt-asgd", "variable_bptt": True, "wdecay": 1.2e-6,
}  # fmt: skip
TABLE = 85, "231eb0c675f11b5e"
"""How many rows there are, and the digest of their figures.

If it fails, a figure was changed, lost or added: look at `git diff bench/published.csv`, hold every
changed line against its source, and only then write the new pair from the message here.
"""


def raw() -> list[dict[str, str]]:
    with FILE.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        assert reader.fieldnames == [field.name for field in dataclasses.fields(Published)]
        return list(reader)


def test_every_row_is_typed_seen_and_of_a_plugin_we_have() -> None:
    registry = find()
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


def test_no_figure_is_lost_or_changed() -> None:
    figures = [(row.model, row.corpus, row.valid_ppl, row.test_ppl, row.mark) for row in ROWS]
    digest = hashlib.sha256(repr(sorted(figures, key=repr)).encode()).hexdigest()[:16]
    assert (len(ROWS), digest) == TABLE, "see the words below TABLE"


def test_what_switches_a_method_off_is_known_of_each() -> None:
    """Every plugin of the table with a rate or a coefficient, and no default is 0."""
    registry = find()
    rates = {"p", "zc", "zh", "wdrop"}
    names = {("cell", row.cell) for row in ROWS}
    names |= {("regularizer", name) for row in ROWS for name in row.regularizer.split("+")}
    for kind, name in names - {("cell", ""), ("regularizer", "")}:
        plugin = registry[kind][name]
        found = [p for p in plugin.params if p.name in rates or p.name == plugin.coefficient]
        assert STRENGTHS.get(name, ()) == tuple(p.name for p in found), name
        assert all(p.default != 0 for p in found), name
    assert set(STRENGTHS) <= {name for _, name in names}


def test_a_condition_is_on_a_field_or_a_hyper_parameter() -> None:
    registry = find()
    for row in ROWS:
        own = {p.name for p in registry["cell"][row.cell].params} if row.cell else set()
        for condition in row.only.split():
            assert condition.partition("=")[0] in {*FIELDS, *own}, row


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
        (",2,200,,true", ",two,200,,true", "invalid literal for int() with base 10: 'two'"),
        (",2,200,,true", ",2,200,,yes", "'yes'"),
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


def beside(
    cell: str, regularizer: str = "none", millions: float | None = None, **trial: Any
) -> set[float | None]:
    """Test figures that stand beside a trial; its record tells the parameters, if any."""
    whole = TRIAL | {"cell": cell, "regularizer": regularizer} | trial
    name, *given = cell.split(":")
    params = {p.name: p.default for p in find()["cell"][name].params}
    params |= {key: json.loads(value) for key, value in (pair.split("=") for pair in given)}
    record: dict[str, object] = {}
    if millions is not None:
        record = {"num_params": int(millions * 1e6), "cell_hparams": json.dumps(params)}
    return {row.test_ppl for row in ROWS if row.agrees(whole, record)}


def beside_sized(cell: str, **trial: Any) -> set[float | None]:
    return beside(cell, millions=trial.pop("millions", 19.8), tied=False, **trial)


def test_a_row_stands_beside_trials_of_its_size_depth_and_tying() -> None:
    assert beside("lstm") == {75.96, 75.4}
    assert beside_sized("lstm") == {80.97, 82.7, 76.81}
    assert beside_sized("lstm", dropout=0.0, dropoute=0.0) == {128.97}
    assert beside_sized("lstm", dropout=0.0) == {80.97, 82.7, 76.81}
    assert beside("lstm", corpus="wikitext-2") == {86.68, 86.91}
    assert beside("lstm", corpus="wikitext-2", optimizer="sgd") == {86.68}, (
        "the other names its optimizer"
    )
    assert beside("lstm", nhid=200) == {87.17}
    assert beside("lstm", nhid=1500) == {72.3, 74.3}
    assert beside("lstm", nlayers=3) == set()
    assert beside("lstm", "ar:alpha=2") == beside("gru") == beside("lstm", nhid=651) == set()
    assert beside("lstm_variational") == {73.9}, "the one with the reused embedding"
    assert beside("lstm_variational", objective="augmented:gamma=0.4") == {73.2}
    assert beside_sized("lstm_zoneout") == {75.45}


def test_the_number_of_parameters_must_agree_within_5_percent() -> None:
    assert beside_sized("lstm", millions=19.01) == {80.97, 82.7, 76.81}
    assert beside_sized("lstm", millions=20.9) == {80.97, 82.7}
    assert beside_sized("lstm", millions=21.1) == {80.97}, "this one does not say how many"
    assert beside("lstm", tied=False) == {80.97}, "nobody knows how many ours has"


AWD: dict[str, Any] = {"nhid": 1150, "nlayers": 3, "emsize": 400, "millions": 24.2}
JOINT = "ar:alpha=2+tar:beta=1"
WHOLE = {57.3, 58.8, 58.95}


def test_awd_stands_beside_its_shape_alone() -> None:
    assert beside("lstm_weightdrop", JOINT, **AWD) == WHOLE
    # Untied from emsize, the model is nearly twice as large.
    assert beside("lstm_weightdrop", JOINT, **AWD | {"emsize": 1150, "millions": 43.0}) == set()
    assert beside("lstm_weightdrop", JOINT, **AWD | {"emsize": 1150}) == set()
    assert beside("lstm_weightdrop", JOINT, **AWD | {"emsize": None}) == set()
    assert beside("lstm_weightdrop", JOINT, corpus="wikitext-2", **AWD | {"millions": 33.5}) == {
        65.8, 66.0, 65.6, 65.4}  # fmt: skip


@pytest.mark.parametrize(
    ("trial", "figure"),
    [
        ({"regularizer": "none"}, 60.3),
        ({"wdecay": 0.0}, 61.0),
        ({"dropoute": 0.0}, 62.7),
        ({"optimizer": "sgd"}, 63.7),
        ({"variable_bptt": False}, 58.9),
        ({"cell": "lstm"}, 68.9),
    ],
)
def test_an_ablation_stands_beside_a_trial_that_lacks_just_this(
    trial: dict[str, Any], figure: float
) -> None:
    chosen = {"cell": "lstm_weightdrop", "regularizer": JOINT} | AWD | trial
    same_method = not trial.keys() & {"cell", "regularizer"}
    assert beside(**chosen) == {figure, *(WHOLE if same_method else ())}
    more = {"optimizer": "sgd"} if "optimizer" not in trial else {"wdecay": 0.0}
    assert beside(**chosen | more) == (WHOLE if same_method else set()), "it lacks two things"


def test_the_ablation_of_unknown_size_stands_nowhere() -> None:
    (row,) = [row for row in ROWS if row.test_ppl == 65.6 and row.corpus == "ptb"]
    assert row.model == "AWD-LSTM without full-size embedding"
    assert (row.cell, row.nhid) == ("", None)


def test_a_method_that_is_switched_off_is_none() -> None:
    assert beside_sized("lstm_zoneout:zc=0") == {75.45}, "it still holds h"
    assert beside_sized("lstm_zoneout:zc=0:zh=0") == set()
    assert beside_sized("lstm_variational:p=0.2") == {77.7, 75.39}
    assert beside_sized("lstm_variational:p=0") == set()
    assert beside_sized("lstm_recurrent_dropout") == {77.88}
    assert beside_sized("lstm_recurrent_dropout:p=0") == set()
    assert beside_sized("lstm_weightdrop:wdrop=0") == set()
    for joint in ("ar:alpha=0+tar:beta=1", "ar:alpha=2+tar:beta=0", "ar:alpha=0+tar:beta=0"):
        assert beside("lstm_weightdrop", joint, **AWD) == set()


def test_one_mask_and_a_mask_per_gate_are_two_models() -> None:
    assert beside_sized("lstm_variational:p=0.2:untied=true") == {79.7, 78.6, 77.7, 75.39}
    large: dict[str, Any] = {"nhid": 1500, "millions": 66.0}
    assert beside_sized("lstm_variational", **large) == {75.0, 74.1, 72.6}
    assert beside_sized("lstm_variational:untied=true", **large) == {75.2, 73.4, 72.6}


def test_where_units_are_unknown_parameters_are_the_size() -> None:
    rhn: dict[str, Any] = {"nhid": 830, "nlayers": 1}
    assert beside("rhn:depth=10", millions=23.5, **rhn) == {65.4, 62.2}
    assert beside("rhn:depth=9", millions=23.5, **rhn) == {66.0, 62.2}
    assert beside("rhn", millions=23.5, **rhn) == {62.2}, "depth 5; that one says no depth"
    assert beside("rhn:depth=10", millions=26.0, **rhn) == set()
    assert beside("rhn:depth=10", **rhn) == beside("rhn:depth=10:p=0", millions=23, **rhn) == set()
    assert beside("nas", millions=24.6) == {64.0, 59.7}
    assert beside("nas", millions=54.0) == {62.4}
    assert beside("lstm", millions=24.0, nhid=950) == {59.6}
    assert beside("lstm", millions=10.2, nhid=650, nlayers=1) == {59.6}
    qrnn: dict[str, Any] = {"nhid": 1550, "nlayers": 4, "emsize": 400}
    assert beside("qrnn", JOINT, **qrnn) == {58.3}


def test_a_continuous_cache_is_not_comparable() -> None:
    assert 52.8 in {row.test_ppl for row in ROWS}
    assert 52.8 not in beside("lstm_weightdrop", JOINT, **AWD)


def test_hyper_parameters_that_are_no_json_harm_nothing() -> None:
    (row,) = [row for row in ROWS if row.test_ppl == 75.2]
    trial = TRIAL | {"cell": "lstm_variational", "regularizer": "none", "nhid": 1500, "tied": False}
    for text in ("{", "[]", None, '{"untied": true}'):
        record = {"num_params": 66_000_000, "cell_hparams": text}
        assert row.agrees(trial, record) == (text == '{"untied": true}')


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
