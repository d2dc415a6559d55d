"""The rules of the cells' suite can fail: cells that are built wrongly in one way each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.contract import CHECKS
from tests.fair_cells import Fair, broken_rules
from tests.test_bent_cells import BENT, centred

ROGUES: dict[str, tuple[Callable[..., nn.Module], str, str]] = {}


def rogue(rule: str, says: str) -> Callable[[type[Fair]], type[Fair]]:
    """Registers a cell that breaks `rule`, of which the suite says `says`."""

    def register(cls: type[Fair]) -> type[Fair]:
        assert cls.__name__ not in ROGUES
        ROGUES[cls.__name__] = (cls, rule, says)
        return cls

    return register


@rogue("keeps_nothing", "raw differs by")
class KeepsItsHiddenState(Fair):
    kept: Tensor | None = None

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        if self.kept is not None and self.kept.shape == state[0].shape:
            state = (self.kept,)
        raw, (h,) = self.steps(x, state)
        self.kept = h.detach()
        return raw, (h,)


@rogue("keeps_nothing", "raw differs by")
class CountsItsCalls(Fair):
    calls = 0

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        self.calls += 1
        raw, state = self.steps(x, state)
        return raw * self.calls, state


@rogue("two_calls_equal_one", "the last state differs by")
class CountsTheStepsOfTheWindow(Fair):
    def initial_state(self, batch_size: int) -> State:
        return *super().initial_state(batch_size), self.w_hh.new_zeros(batch_size)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, after = self.steps(x, state[:1])
        return raw, (*after, torch.full_like(state[1], len(raw)))


@rogue("no_column_leak", "raw of column 0, when column 1's input changed, differs by")
class MixesColumnsInEvaluationThoughItSaysTraining(Fair):
    mixes_batch = True

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        return centred(raw), state


@rogue("memory_flag", "memory = True, but forward returns 2 values")
class PromisesMemory(Fair):
    memory = True


@rogue("no_future", "raw before step 3, whose input changed, differs by")
class ReadsTheWindowBackwards(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x.flip(0), state)
        return raw.flip(0), state


@rogue("no_future", "the output ignores its input")
class IgnoresItsInput(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        return self.steps(0 * x, state)


@rogue("randomness_from_noise", "raw under two global seeds differs by")
class BeginsAnywhere(Fair):
    def initial_state(self, batch_size: int) -> State:
        return (torch.randn(batch_size, self.hidden_size, dtype=self.w_hh.dtype),)


@rogue("silent_without_noise", "AttributeError")
class NeedsNoiseInTraining(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        if self.training:
            raw = raw * noise.mask("raw", tuple(raw.shape), 0.5)  # type: ignore[union-attr]
        return raw, state


@rogue("asks_noise_once", "one forward call asks noise for 'raw' 6 times")
class AsksForItsMaskAtEveryStep(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        if noise is not None:  # meant to be another mask at every step; it is the same one
            raw = torch.stack([h * noise.mask("raw", tuple(h.shape), 0.5) for h in raw])
        return raw, state


@rogue("shapes", "the state's shapes change from [(3, 12)] to [(1, 3, 12)]")
class AddsAnAxisToItsState(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, (h,) = self.steps(x, (state[0].view(-1, self.hidden_size),))
        return raw, (h.unsqueeze(0),)


@rogue("shapes", "states must be [B, *], not [(1, 3, 12)]")
class HasLayersInItsState(Fair):
    def initial_state(self, batch_size: int) -> State:
        return (self.w_hh.new_zeros(1, batch_size, self.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, (h,) = self.steps(x, (state[0][0],))
        return raw, (h.unsqueeze(0),)


@rogue("shapes", "initial_state must return a tuple of tensors")
class BeginsWithATensor(Fair):
    def initial_state(self, batch_size: int) -> Any:
        return super().initial_state(batch_size)[0]

    def forward(self, x: Tensor, state: Any, noise: Noise | None) -> Any:
        return self.steps(x, (state,))


@rogue("gradients", "forward changes its input in place")
class ChangesItsInput(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        x.data.mul_(2)
        return self.steps(x, state)


@rogue("gradients", "forward changes its state in place")
class ChangesItsState(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, after = self.steps(x, state)
        state[0].data.copy_(after[0])
        return raw, after


@rogue("gradients", "unused gets no gradient")
class HasAnUnusedParameter(Fair):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.unused = nn.Parameter(torch.zeros(3))


@rogue("gradients", "x gets no gradient")
class CutsOffItsInput(Fair):
    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        return self.steps(x.detach(), state)


@rogue("gradients", "the gradient of gain is not finite")
class HasAnInfiniteGradient(Fair):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gain = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        return raw + self.gain.sqrt(), state


@rogue("own_initialisation", "layer 1's initial weights depend on what layer 0 drew")
class HasAGeneratorForAll(Fair):
    generator: ClassVar[torch.Generator] = torch.Generator().manual_seed(1)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        nn.init.uniform_(self.w_hh, -0.3, 0.3, generator=self.generator)


@rogue("state_dict_round_trip", "raw after loading the state_dict differs by")
class HidesAWeight(Fair):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.hidden = torch.rand(hidden_size)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        return raw * self.hidden.to(raw.dtype), state


@rogue("plain_twin", "raw of plain() differs by")
class HasAnotherTwin(Fair):
    def plain(self) -> nn.Module:
        return Fair(self.w_ih.shape[1], self.hidden_size).double()


@pytest.mark.parametrize("name", ROGUES)
def test_a_rogue_cell_breaks_its_rule(name: str) -> None:
    make, rule, says = ROGUES[name]
    broken = broken_rules("cell", make)
    assert rule in broken, broken
    assert says in broken[rule]


def test_every_rule_of_cells_is_broken_by_some_rogue() -> None:
    broken = {rule for _, rule, _ in ROGUES.values()} | {rule for rule, _, _ in BENT.values()}
    assert broken == {c.__name__ for c in CHECKS["cell"]}
