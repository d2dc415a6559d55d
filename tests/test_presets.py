"""The grids that travel with the harness."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config import Expansion, expand, load_grid, preset_names
from bench.config.sizes import Sizes
from bench.plugins import find

PRESETS = Path(__file__).resolve().parent.parent / "bench" / "presets"
PAPER = [
    "paper-ar",
    "paper-tar",
    "paper-ptb",
    "paper-wt2",
    "paper-cells",
    "paper-ablations",
]


def expanded(name: str) -> Expansion:
    return expand(load_grid(name), find())


def mappings(value: object) -> list[dict[str, Any]]:
    """Every mapping inside a grid file."""
    found = []
    if isinstance(value, dict):
        found.append(value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found += mappings(item)
    return found


def half_set(data: object) -> list[dict[str, Any]]:
    """The mappings that set one of the paper's two `dp` rates and forget the other."""
    return [each for each in mappings(data) if ("dropout" in each) != ("dropouti" in each)]


def test_a_half_set_rate_is_noticed() -> None:
    assert half_set({"base": {"dropout": 0.5, "dropouti": 0.5}}) == []
    assert half_set({"base": {"dropout": 0.5}})
    assert half_set({"blocks": [{"axes": {"size": [{"nhid": 1500, "dropouti": 0.65}]}}]})


@pytest.mark.parametrize("name", preset_names())
def test_dropout_comes_with_dropouti(name: str) -> None:
    assert half_set(yaml.safe_load((PRESETS / f"{name}.yaml").read_text())) == []


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_under_its_own_name(name: str, request: pytest.FixtureRequest) -> None:
    assert load_grid(name).name == name
    if name == "equal-size":  # sizes are solved for PTB's own vocabulary
        request.getfixturevalue("real_data")
    assert expanded(name).trials


@pytest.mark.parametrize(
    "name",
    [*PAPER, "paper", "ptb-small", "rivals", "rivals-quick", "equal-size", "learning-rates"],
)
def test_comments_say_where_it_comes_from(name: str) -> None:
    lines = (PRESETS / f"{name}.yaml").read_text().splitlines()
    comments = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert "Source:" in comments
    if name in PAPER:
        assert "1708.01009" in comments
        assert "Unknown:" in comments
        assert re.search(r"\bcoefficients\b.*\bours\b", comments, re.IGNORECASE)


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("paper-ar", 35),
        ("paper-tar", 35),
        ("paper-ptb", 30),
        ("paper-wt2", 10),
        ("paper-cells", 20),
        ("paper-ablations", 35),
        ("ptb-small", 2),
    ],
)
def test_sizes(name: str, trials: int) -> None:
    expansion = expanded(name)
    assert len(expansion.trials) == trials
    assert expansion.merged == 0 and not expansion.skipped


def cells(name: str) -> set[str]:
    """The names of the cells in a preset, without hyper-parameters."""
    return {trial.cell.split(":")[0] for trial in expanded(name).trials}


def test_presets_of_all_cells_have_all_cells() -> None:
    assert cells("learning-rates") == set(find()["cell"])


def test_equal_size_has_all_cells_at_one_size(real_data: Path) -> None:
    assert cells("equal-size") == set(find()["cell"])
    sizes = Sizes(find(), lambda corpus: 10_000)
    for trial in expanded("equal-size").trials:
        again = trial.model_dump(exclude={"nhid", "emsize"}) | {"num_params": "24M"}
        assert sizes.solve(again, "here")["nhid"] == trial.nhid


def test_rivals_are_every_dropout_type_cell_with_the_flipout_papers_settings() -> None:
    stochastic = ("variational", "dropout", "zoneout", "weightdrop")
    wanted = {c for c in find()["cell"] if c.split("_", 1)[-1].endswith(stochastic)}
    assert cells("rivals") == cells("rivals-quick") | {"rnn_variational", "rnn_tanh"}
    assert cells("rivals") == wanted | {"lstm", "gru", "rnn_tanh"}
    lstms = [t for t in expanded("rivals").trials if t.cell.startswith("lstm")]
    assert len(lstms) == 6 * 2 * 5
    assert {(t.nhid, t.tied, t.bptt, t.batch_size, t.epochs, t.lr, t.clip) for t in lstms} == {
        (650, False, 35, 40, 100, 30, 0.25)
    }
    rates = {
        (t.cell, t.dropouti, t.dropouth, t.dropout, t.dropoute, t.locked)
        for t in lstms
        if not t.cell.endswith("lstm") or t.dropout
    }
    assert rates == {
        ("lstm", 0.5, 0.5, 0.5, 0.1, False),
        ("lstm_recurrent_dropout:p=0.3", 0.5, 0.5, 0.5, 0.1, False),
        ("lstm_variational:p=0.2", 0.35, 0.35, 0.35, 0.2, True),
        ("lstm_zoneout", 0.5, 0.5, 0.5, 0.1, False),
        ("lstm_weightdrop", 0.4, 0.3, 0.4, 0.1, True),
    }


def test_paper_holds_all_once() -> None:
    whole = expanded("paper")
    parts = [trial for name in PAPER for trial in expanded(name).trials]
    assert set(whole.trials) == set(parts)
    assert len(whole.trials) == len(set(parts))
    # `none` at 650 units stands in four parts, ar+tar at 650 units in two; five repetitions each.
    assert whole.merged == len(parts) - len(set(parts)) == 20


@pytest.mark.parametrize(("name", "spelling"), [("paper-ar", "ar"), ("paper-tar", "tar")])
def test_six_integer_coefficients(name: str, spelling: str) -> None:
    kinds = {trial.regularizer for trial in expanded(name).trials} - {"none"}
    values = {re.fullmatch(rf"{spelling}(?::\w+=(\d+))?(?:\.0)?", kind) for kind in kinds}
    assert None not in values and len(values) == 6


def test_ablations_change_one_factor_at_a_time() -> None:
    trials = {(t.regularizer, t.clip) for t in expanded("paper-ablations").trials}
    assert len({regularizer for regularizer, clip in trials if clip == 0.25}) == 5
    at_ten = {regularizer for regularizer, clip in trials if clip == 10}
    assert at_ten < {regularizer for regularizer, _ in trials} and len(at_ten) == 2


def test_paper_ptb_sizes() -> None:
    trials = expanded("paper-ptb").trials
    assert {(t.nhid, t.dropout, t.dropouti, t.dropouth) for t in trials} == {
        (650, 0.5, 0.5, 0.3),
        (950, 0.5, 0.5, 0.3),
        (1500, 0.65, 0.65, 0.3),
    }


def test_weights_are_kept_where_text_is_to_be_sampled() -> None:
    assert load_grid("ptb-small").keep_weights == "best"
    assert all(load_grid(name).keep_weights == "none" for name in [*PAPER, "paper"])
