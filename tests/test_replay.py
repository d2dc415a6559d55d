"""Steps through the fixed buffers of a replay give the numbers of plain steps, to the bit."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.config import make_trial
from bench.corpora.windows import windows
from bench.engine import Engine
from bench.loop import Trainer
from bench.noise import StepNoise, WindowNoise
from bench.plugins import find
from bench.replay import WARM_UP, Replay
from tests.trainers import make_trainer

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 12,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 3,
}


def trainer(replay: bool, **changes: Any) -> Trainer:
    one = make_trainer(make_trial(SMALL | changes, find(), "test"), CPU)
    one.engine = Engine(one.trial, one.model, one.regularizers, CPU, replay=replay)
    return one


def outcome(one: Trainer) -> tuple[list[dict[str, Any]], float]:
    clocks = ("seconds", "tokens_per_s")
    epochs = [{k: v for k, v in e.items() if k not in clocks} for e in one.epochs()]
    return epochs, one.result()["test_nll"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cell": "gru_variational", "regularizer": "ar+tar", "locked": True, "dropoute": 0.1},
        {"cell": "lstm_zoneout", "objective": "augmented", "eval_mc": 2},
        {"cell": "lstm_batchnorm", "optimizer": "nt-asgd", "nonmono": 1, "lr": 8.0},
        {"cell": "rhn:depth=2", "lr": 1.0, "variable_bptt": True},
        {"cell": "lstm_weightdrop", "precision": "fp64", "nlayers": 3},
    ],
    ids=lambda changes: changes.get("cell", "lstm"),
)
def test_replayed_steps_are_the_plain_ones_to_the_bit(changes: dict[str, Any]) -> None:
    replayed = trainer(True, **changes)
    assert outcome(replayed) == outcome(trainer(False, **changes))
    assert isinstance(replayed.engine._train, Replay)
    share = replayed.engine._train.replays / replayed.at.step
    assert share > (0.2 if replayed.trial.variable_bptt else 0.9), "hardly anything was replayed"
    assert replayed.engine.path == "captured"


def test_what_a_replay_returns_lies_in_one_place_and_may_be_given_back() -> None:
    def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x + state[0], (state[0] + 1,)

    replay, state = Replay(step, None), (torch.zeros(2),)
    for number in range(WARM_UP + 4):
        out, state = replay(torch.full((2,), 10.0), state)
        assert out.tolist() == [10.0 + number] * 2
        if number == WARM_UP:
            place = out.data_ptr(), state[0].data_ptr()
        if number > WARM_UP:
            assert (out.data_ptr(), state[0].data_ptr()) == place


def test_other_shapes_stay_plain() -> None:
    seen: list[int] = []

    def step(x: Tensor) -> Tensor:
        seen.append(len(x))
        return 2 * x

    replay = Replay(step, None)
    for _ in range(WARM_UP + 2):
        replay(torch.ones(3))
    assert replay(torch.ones(2)).tolist() == [2.0, 2.0]
    assert replay(torch.full((3,), 5.0)).tolist() == [10.0] * 3
    assert seen[-2:] == [2, 3]


def test_masks_from_a_fed_key_are_those_of_the_plain_noise() -> None:
    noise = StepNoise(3, "train", CPU, torch.float32)
    for step in range(6):
        noise.feed(step)
        if step == 2:
            noise.begin_replay()
        if step == 4:
            noise.end_replay()
        plain = WindowNoise(3, "train", step, CPU, torch.float32)
        for site, name in (("input", "words"), ("layer0", "words"), ("layer0", "m")):
            drawn = noise.at(site).mask(name, (5, 7), 0.4)
            assert torch.equal(drawn, plain.at(site).mask(name, (5, 7), 0.4))


def test_a_plugin_that_cannot_be_recorded_runs_plainly() -> None:
    one = trainer(True)
    one.model.cells[0].eager_only = "looks at values"  # type: ignore[assignment]
    engine = Engine(one.trial, one.model, one.regularizers, CPU, replay=True)
    assert engine.path == "eager"
    assert not isinstance(engine._train, Replay)


class NoLooking(TorchDispatchMode):
    """Refuses what a host would have to wait for a GPU for, and no recording survives."""

    LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.LOOKS, f"{func} looks at a value"
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16", "fp16"])
@pytest.mark.parametrize("cell", sorted(find()["cell"]))
def test_no_step_looks_at_a_value(cell: str, precision: str) -> None:
    """With the learning rate in a tensor, as on a GPU."""
    one = make_trainer(
        make_trial(
            SMALL
            | {"cell": cell, "precision": precision, "regularizer": "ar+tar", "dropoute": 0.1},
            find(),
            "test",
        ),
        CPU,
    )
    engine = one.engine
    engine.step.update.lr = torch.tensor(1.0, dtype=one.dtype)
    engine.noise.begin_replay()
    tokens, targets = next(windows(one.columns, 10))
    state = one.model.initial_state(5)
    one.model.train()
    with NoLooking():
        for number in range(2):
            engine.noise.step = number
            _, _, _, state = engine.step(tokens, targets, state, engine.noise)
        one.model.eval()
        with torch.no_grad():
            one.model(tokens, targets, state, None)


def test_an_ended_trial_leaves_no_memory_behind() -> None:
    """By counting references alone: the collector comes rarely, and a GPU's memory would fill."""
    import gc

    one = trainer(True, epochs=1)
    list(one.epochs())
    one.result()
    gone = weakref.ref(one.model)
    gc.disable()
    try:
        del one
        assert gone() is None
    finally:
        gc.enable()


def test_a_recording_that_fails_is_told_and_everything_goes_on_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recording itself is made up here: no CPU has one."""
    monkeypatch.setattr("bench.replay.spoiled", False)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: None)

    def capture(self: Any, stream: Any, pool: Any) -> None:
        if len(self.inputs[0]) == 2:
            try:
                raise ValueError("looked at\na value")
            except ValueError:
                raise RuntimeError("a broken capture was ended") from None

    monkeypatch.setattr("bench.replay._Recording.capture", capture)
    noise = StepNoise(3, "train", CPU, torch.float32)
    stream: Any = object()

    def step(x: Tensor) -> Tensor:
        return noise.at("layer0").mask("m", tuple(x.shape), 0.5)

    replay = Replay(step, stream, noise)
    for number in range(4 * WARM_UP + 6):
        noise.feed(number)
        shape = (3,) if number < WARM_UP + 2 or number % 2 else (2,)
        plain = WindowNoise(3, "train", number, CPU, torch.float32).at("layer0")
        assert torch.equal(replay(torch.ones(shape)), plain.mask("m", shape, 0.5))
        if number == WARM_UP:
            assert replay.replays == 1
    assert replay.failure == "ValueError: looked at a value"
    assert not noise.replayed
    another = Replay(lambda x: x, stream)
    for _ in range(WARM_UP + 2):
        another(torch.ones(2))
    assert another.failure == "a recording has failed in this process"
