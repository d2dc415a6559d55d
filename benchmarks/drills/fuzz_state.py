"""Where a trial stands, fuzzed: files of checkpoints/, as far as what is put back into a Trainer.

The name of a file holds a hash of its content, so what is damaged by itself is not read at all.
Here the hash is made right for whatever is written, but for the recipes that leave it as it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.checkpoint import Keeper
from bench.config import Trial, make_trial, select
from bench.corpora import Corpus
from bench.corpora import load as load_corpus
from bench.loop import Trainer, prepare_thread
from bench.plugins import build_regularizers, load_class
from bench.snapshot import Misfit, Snapshot, put_back, take
from bench.storage import open_storage
from benchmarks.drills.fuzz_damage import damaged
from benchmarks.drills.fuzz_texts import registry
from benchmarks.drills.fuzz_watch import Target

RUN_ID = "0123456789ab"
_ABOUT = {"device": "cpu", "threads": 1}
_TRIAL = {
    "corpus": "synthetic:train=300:valid=40:test=40",
    "cell": "lstm",
    "nhid": 2,
    "batch_size": 3,
    "bptt": 10,
    "epochs": 9,
    "lr": 5,
    "optimizer": "nt-asgd",
    "nonmono": 1,
}
_MADE = Path("checkpoints") / RUN_ID


@functools.cache
def _given() -> tuple[Trial, Corpus]:
    """Returns the trial and its corpus, read once."""
    trial = make_trial(_TRIAL, registry(), "fuzzed")
    return trial, load_corpus(trial.corpus, Path())


def new_trainer() -> Trainer:
    """Returns one that has trained nothing."""
    trial, corpus = _given()
    prepare_thread(torch.device("cpu"), 1, trial.precision)
    cell, regularizers = select(trial, registry())
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    return Trainer(trial, corpus, make_cell, build_regularizers(regularizers), torch.device("cpu"))


@functools.cache
def sound() -> tuple[tuple[Snapshot, list[dict[str, Any]]], ...]:
    """Returns where the trial stands, with its epochs: at its start, in an epoch, averaging."""
    trainer, epochs = new_trainer(), list[dict[str, Any]]()
    found = [(take(trainer), list(epochs))]
    for turn, epoch in enumerate(trainer.turns()):
        epochs += [epoch] if epoch is not None else []
        if turn == 3 or (trainer.average is not None and trainer.at.windows == 2):
            found.append((take(trainer), list(epochs)))
        if len(found) == 3:
            break
    assert len(found) == 3, "nothing was averaged"
    return tuple(found)


def _content(number: int) -> bytes:
    (tensors, numbers), epochs = sound()[number % 3]
    return _saved(tensors, numbers, epochs)


def _saved(tensors: dict[str, Tensor], numbers: Any, epochs: Any) -> bytes:
    said = {"format": 1, "run_id": RUN_ID, "about": _ABOUT, "numbers": numbers, "epochs": epochs}
    return save(tensors, {"bench": json.dumps(said)})


# --- recipes --------------------------------------------------------------------------------------


def _file(data: bytes) -> tuple[str, bytes]:
    """Returns the name and content of a file after a recipe: a digit for which sound one, then it.

    `m`: numbers and tensors are changed, by four bytes and a value each; `j`: what follows is the
    JSON; `n`: what follows is the file's name; `o`: damaged, under the name it had; else damaged.
    """
    content, kind, rest = _content(data[0] if data else 0), data[1:2], data[2:]
    name = _name(content)
    if kind == b"m":
        content = _changed(content, rest)
    elif kind == b"j":
        content = save(load(content), {"bench": rest.decode(errors="replace")})
    elif kind == b"n":
        said = rest.decode(errors="replace").replace("/", "").replace("\0", "").encode()[:200]
        return said.decode(errors="ignore").strip(".") or name, content
    elif kind == b"o":
        return name, damaged(content, rest)
    else:
        content = damaged(content, data[1:])
    return _name(content), content


def _name(content: bytes) -> str:
    return f"000007-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def _changed(content: bytes, recipe: bytes) -> bytes:
    """Returns a file that its writer could have written: numbers or tensors are others."""
    end = 8 + int.from_bytes(content[:8], "little")
    said = json.loads(json.loads(content[8:end])["__metadata__"]["bench"])
    tensors, rest = load(content), recipe
    while len(rest) >= 4:
        which, at, kind, length = rest[:4]
        value, rest = rest[4 : 4 + length], rest[4 + length :]
        if which % 2:
            places = list(_places({key: said[key] for key in ("numbers", "epochs")}))
            _put(*places[at % len(places)], _NUMBERS[kind % len(_NUMBERS)](value))
        elif tensors:
            name = sorted(tensors)[at % len(tensors)]
            _bend(tensors, name, _TENSORS[kind % len(_TENSORS)], value)
    return save(tensors, {"bench": json.dumps(said)})


def _places(inside: Any) -> list[tuple[Any, Any]]:
    """Returns every container of a JSON value with each of its keys, what is inside included."""
    keys = list(inside) if isinstance(inside, dict) else range(len(inside))
    found: list[tuple[Any, Any]] = [(inside, key) for key in keys]
    for key in keys:
        if isinstance(inside[key], dict | list):
            found += _places(inside[key])
    return found


def _put(inside: Any, key: Any, value: Any) -> None:
    if value == _DROP:
        del inside[key]
    else:
        inside[key] = value


_DROP = "dropped"
_NUMBERS: tuple[Callable[[bytes], Any], ...] = (
    lambda v: _DROP,
    lambda v: None,
    lambda v: len(v) % 2 == 0,
    lambda v: int.from_bytes(v[:9], signed=True),
    lambda v: 10 ** (20 * len(v)),
    lambda v: int.from_bytes(v[:8], signed=True) / 7,
    lambda v: float("nan"),
    lambda v: -float("inf"),
    lambda v: v.decode(errors="replace"),
    lambda v: [],
    lambda v: [len(v), 2],
    lambda v: {v.decode(errors="replace"): 1},
    lambda v: [1.5] * len(v),
    lambda v: {"at": {}, "state": [2]},
)
_TENSORS: tuple[Callable[[Tensor, bytes], Tensor | None], ...] = (
    lambda t, v: None,
    lambda t, v: t.to(torch.float16),
    lambda t, v: t.to(torch.float64),
    lambda t, v: t.to(torch.int64),
    lambda t, v: t.to(torch.bool),
    lambda t, v: t.to(torch.complex64),
    lambda t, v: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t.to(torch.uint8),
    lambda t, v: t.to(torch.bfloat16),
    lambda t, v: t.reshape(-1),
    lambda t, v: t.unsqueeze(0),
    lambda t, v: t[:0] if t.ndim else torch.zeros(0, 3),
    lambda t, v: t.repeat(*[2] * max(t.ndim, 1)),
    lambda t, v: t.mT if t.ndim > 1 else t.flip(0) if t.ndim else t,
    lambda t, v: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
    lambda t, v: torch.frombuffer(bytearray(v or b"0"), dtype=torch.uint8),
    lambda t, v: torch.zeros(()),
)


def _bend(
    tensors: dict[str, Tensor],
    name: str,
    how: Callable[[Tensor, bytes], Tensor | None],
    value: bytes,
) -> None:
    bent = how(tensors[name], value)
    if bent is None:
        tensors[value.decode(errors="replace") or "gone"] = tensors.pop(name)
    else:
        tensors[name] = bent.contiguous().clone()


# --- what it is held to ---------------------------------------------------------------------------

_ready: list[Trainer] = []


def read_checkpoint(data: bytes, here: Path) -> None:
    """What is put back is where such a trial can stand; what is refused has changed nothing."""
    name, content = _file(data)
    path = here / _MADE / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    keeper = Keeper(open_storage(str(here)), RUN_ID, _ABOUT)
    found = keeper.load()
    if found is None:
        return
    tensors, numbers, epochs = found
    assert all(isinstance(epoch, dict) for epoch in epochs)
    assert name == _name(content) or data[1:2] == b"n", "believed under another hash"
    trainer = _ready.pop() if _ready else new_trainer()
    try:
        put_back(trainer, (tensors, numbers))
    except Misfit:
        assert _alike(take(trainer), sound()[0][0]), "refused, and changed"
        _ready.append(trainer)
        return
    _possible(trainer, tensors)
    keeper.save(*take(trainer), epochs)
    assert keeper.load() is not None, "what is taken from it cannot be read"


def _possible(trainer: Trainer, given: dict[str, Tensor]) -> None:
    """Asserts that each tensor and number is one of those where the trial can stand."""
    tensors, numbers = take(trainer)
    kinds = {n: (t.shape, t.dtype) for (every, _), _ in sound() for n, t in every.items()}
    for name, tensor in tensors.items():
        assert kinds.get(name) == (tensor.shape, tensor.dtype), f"{name} is of another shape"
        assert _bits(tensor) == _bits(given[name]), f"{name} is not what was written"
    types = {type(v) for (_, n), _ in sound() for v in n["at"].values()}
    assert {type(value) for value in dataclasses.asdict(trainer.at).values()} <= types
    json.dumps(numbers, allow_nan=False)


def _alike(one: Snapshot, other: Snapshot) -> bool:
    return one[1] == other[1] and {n: _bits(t) for n, t in one[0].items()} == {
        n: _bits(t) for n, t in other[0].items()
    }


def _bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


_N, _T = range(len(_NUMBERS)), range(len(_TENSORS))


def _seeds() -> list[bytes]:
    recipes = [b"e", b"w", b"t\x80\x00", b"z\x40\x00", b"e\x00\x09\x00\x7f", b"o\x00\x09\x00\x7f"]
    recipes += [b"m" + bytes([1, at, kind, 2, 5, 6]) for at in range(0, 24, 5) for kind in _N]
    recipes += [b"m" + bytes([0, at, kind, 1, 97]) for at in range(0, 20, 6) for kind in _T]
    recipes += [b"n000009-0123456789abcdef.safetensors", b"nnotes.txt"]
    said = {"format": 1, "run_id": RUN_ID, "about": _ABOUT, "numbers": {}, "epochs": []}
    recipes += [b"j" + json.dumps(said).encode(), b"j[]", b"j{"]
    return [b"%d" % n + recipe for n in range(3) for recipe in recipes] + [b"0w" + _content(0)]


_TOKENS = (b'"numbers"', b'"epochs"', b'"at"', b'"state"', b'"average_steps"', b"null", b"NaN",
           b"1e999", b"[[[[[[[[[[", b'"F8_E4M3"', b'"data_offsets"', b"__metadata__")  # fmt: skip
TARGETS = {"checkpoint": Target(read_checkpoint, ("checkpoint",), _seeds, _TOKENS)}
