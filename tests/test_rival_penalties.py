"""norm_stabilizer, l1 and tar_memory: values worked out by hand, and what defines each."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch

from bench.api import Activations
from bench.config import expand, load_grid, override
from bench.plugins import find, load_class
from tests.test_penalties import ACTS, changed, column

# Norms of ACTS: raw layer 0 has 1, 1, sqrt(5), layer 1 sqrt(5), sqrt(13), 3; dropped layer 0 has
# 2, 0, sqrt(20), layer 1 has 2, sqrt(52), 0.
STABILIZER = {
    ("raw", "last"): ((sqrt(13) - sqrt(5)) ** 2 + (3 - sqrt(13)) ** 2) / 2,
    ("dropped", "last"): ((sqrt(52) - 2) ** 2 + 52) / 2,
    ("raw", "all"): ((sqrt(5) - 1) ** 2 / 2 + ((sqrt(13) - sqrt(5)) ** 2 + (3 - sqrt(13)) ** 2) / 2)
    / 2,
    ("dropped", "all"): ((4 + 20) / 2 + ((sqrt(52) - 2) ** 2 + 52) / 2) / 2,
}
L1 = {
    ("dropped", "last"): 12 / 6,
    ("raw", "last"): 11 / 6,
    ("dropped", "all"): (8 / 6 + 12 / 6) / 2,
    ("raw", "all"): (5 / 6 + 11 / 6) / 2,
}


def made(name: str, **options: Any) -> Any:
    return load_class(find()["regularizer"][name])(**options)


def with_memory(acts: Activations) -> Activations:
    """The raw outputs stand for the memories."""
    return Activations(acts.embedded, acts.raw, acts.dropped, acts.raw)


@pytest.mark.parametrize("options", sorted(STABILIZER), ids=":".join)
def test_norm_stabilizer_by_hand(options: tuple[str, str]) -> None:
    value = made("norm_stabilizer", of=options[0], layers=options[1])(ACTS)
    assert float(value) == pytest.approx(STABILIZER[options], rel=1e-14)


@pytest.mark.parametrize("options", sorted(L1), ids=":".join)
def test_l1_by_hand(options: tuple[str, str]) -> None:
    negative = changed(ACTS, lambda t: -t)
    for acts in (ACTS, negative):
        value = made("l1", of=options[0], layers=options[1])(acts)
        assert float(value) == pytest.approx(L1[options], rel=1e-14)


def test_tar_memory_by_hand() -> None:
    # The memories' changes: layer 0 (0,0), (2,0): 4/4; layer 1 (2,0), (0,-2): 8/4.
    acts = with_memory(ACTS)
    assert float(made("tar_memory")(acts)) == pytest.approx(2)
    assert float(made("tar_memory", layers="all")(acts)) == pytest.approx(1.5)


def test_norm_stabilizer_sees_lengths_and_tar_directions() -> None:
    turning = Activations(
        ACTS.embedded, (column((3, 4), (5, 0), (0, -5)),), (column((3, 4), (5, 0), (0, -5)),), ()
    )
    assert float(made("norm_stabilizer")(turning)) == pytest.approx(0, abs=1e-24)
    assert float(made("tar")(turning)) > 1


@pytest.mark.parametrize("name", ["norm_stabilizer", "tar_memory"])
def test_a_window_of_one_step_has_no_change(name: str) -> None:
    one_step = with_memory(changed(ACTS, lambda t: t[:1]))
    assert float(made(name)(one_step)) == 0


@pytest.mark.parametrize("name", ["norm_stabilizer", "l1", "tar_memory"])
def test_a_negative_coefficient_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must not be below 0, but is -1"):
        made(name, **{made(name).coefficient: -1.0})


def test_tar_memory_is_skipped_where_there_is_no_memory() -> None:
    cells = {name: bool(p.flags["memory"]) for name, p in find()["cell"].items()}
    assert cells["lstm_zoneout"] and not cells["lstm"] and not cells["gru"]
    made_grid = override(
        load_grid("quick"), [f"cell={','.join(cells)}", "regularizer=none,tar_memory", "nhid=8"]
    )
    expansion = expand(made_grid, find())
    trained = {t.cell.split(":")[0] for t in expansion.trials if t.regularizer != "none"}
    assert trained == {name for name, has in cells.items() if has}
    reasons = {cell: why for (cell, _, why) in expansion.skipped}
    assert reasons["lstm"] == "tar_memory needs memory, which lstm does not give"
    assert set(reasons) == set(cells) - trained


def test_gradient_of_tar_memory_reaches_the_weights_through_the_memory_alone() -> None:
    cell = load_class(find()["cell"]["lstm_zoneout"])(3, 4).double()
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    raw, _, memory = cell(x, cell.initial_state(2), None)
    made("tar_memory")(Activations(x, (raw,), (raw,), (memory,))).backward()
    grads = [p.grad for p in cell.parameters()]
    assert all(g is not None and bool((g != 0).any()) for g in grads)
