"""The contract suites over every plugin of the tree. That each rule can fail: test_rogue_*.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.contract import CHECKS, run, variants
from bench.plugins import find, load_class, read

PLUGINS = [plugin for found in find().values() for plugin in found.values()]


def cases() -> list[Any]:
    """One case for each plugin, rule and variant: `lstm-no_future`, `ar:form=norm-gradients`."""
    return [
        pytest.param(
            plugin,
            hparams,
            check,
            id=f"{plugin.name}{label and f':{label}'}-{check.__name__}",
        )
        for plugin in PLUGINS
        for check in CHECKS[plugin.kind]
        for label, hparams in variants(plugin).items()
    ]


@pytest.mark.parametrize(("plugin", "hparams", "check"), cases())
def test_contract(plugin: Any, hparams: dict[str, Any], check: Callable[[Any], None]) -> None:
    check(functools.partial(load_class(plugin), **hparams))


def test_every_plugin_of_the_tree_is_held_to_every_rule() -> None:
    assert {"lstm", "gru", "rnn_tanh", "none", "ar", "tar"} <= {p.name for p in PLUGINS}
    held = {(case.values[0].name, case.values[2].__name__) for case in cases()}
    assert held == {(p.name, c.__name__) for p in PLUGINS for c in CHECKS[p.kind]}


CELL = """\
from typing import Literal
import torch
from torch import Tensor, nn


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        form: Literal["soft", "hard"] = "soft",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.form = form
        self.rnn = nn.RNN(input_size, hidden_size, bias=bias)

    def initial_state(self, batch_size: int):
        return (self.rnn.weight_hh_l0.new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x, state, noise):
        raw, h = self.rnn(x, state[0].unsqueeze(0))
        return raw.flip(0) if self.form == "hard" else raw, (h.squeeze(0),)
"""


def test_a_suite_covers_each_choice_not_the_defaults_alone(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(CELL)
    plugin = read(tmp_path / "made_up.py", "cell", "here")
    assert variants(plugin) == {
        "": {},
        "bias=false": {"bias": False},
        "form=hard": {"form": "hard"},
    }
    causes = {rule: cause for rule, _, cause, _ in run(plugin)}
    assert list(causes) == [c.__name__ for c in CHECKS["cell"]]
    assert causes["shapes"] is None
    assert (causes["no_future"] or "").startswith("with form=hard: raw before step 3")
