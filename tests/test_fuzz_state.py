"""Checkpoints that others wrote; locations, addresses and rhythms that nobody would write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from bench.checkpoint import Keeper
from bench.corpora.texts import cache_dir, default_data_dir
from bench.errors import BadInput
from bench.snapshot import Misfit, put_back, take
from bench.storage import open_storage
from benchmarks.drills import fuzz_options, fuzz_state
from benchmarks.drills.fuzz_state import RUN_ID, sound
from benchmarks.drills.fuzz_watch import Target
from tests.fuzzing import fed, often

Feed = Callable[[Target, bytes], None]
CHECKPOINT = fuzz_state.TARGETS["checkpoint"]
OPTIONS = fuzz_options.TARGETS["options"]


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    sound()  # made before the watch: it trains, and reads a corpus
    with fed(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


# --- checkpoints ----------------------------------------------------------------------------------

VALUE = st.binary(max_size=6)
CHANGE = st.tuples(st.binary(min_size=3, max_size=3), VALUE).map(
    lambda change: change[0] + bytes([len(change[1])]) + change[1]
)
RECIPE = st.one_of(
    st.lists(CHANGE, max_size=3).map(lambda changes: b"m" + b"".join(changes)),
    st.tuples(st.sampled_from([b"e", b"t", b"z", b"o", b"w", b"j", b"n"]), st.binary(max_size=16))
    .map(b"".join)
)  # fmt: skip


@often(120)
@given(st.sampled_from([b"0", b"1", b"2"]), RECIPE)
@example(b"0", b"")
@example(b"2", b"")
@example(b"1", b"j" + b"[" * 100_000)
@example(b"1", b"n000009-0123456789abcdef.safetensors")
@example(b"1", "n\u0660\u0661\u0662\u0663\u0664\u0665-0123456789abcdef.safetensors".encode())
def test_any_checkpoint_is_gone_on_with_whole_or_not(
    feed: Feed, which: bytes, recipe: bytes
) -> None:
    feed(CHECKPOINT, which + recipe)


def _numbers(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda tensors, numbers: numbers.update(changes)


def _at(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda tensors, numbers: numbers["at"].update(changes)


def _tensor(
    name: str, new: torch.Tensor | None
) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(tensors: dict[str, Any], numbers: dict[str, Any]) -> None:
        del tensors[name]
        if new is not None:
            tensors[name] = new

    return change


FOUND = {
    "no numbers": lambda tensors, numbers: numbers.clear(),
    "a state of no layers": _numbers(state=[]),
    "a state that is a number": _numbers(state=2),
    "a state of more tensors": _numbers(state=[2, 3]),
    "a state that is not there": _tensor("state.1.0", None),
    "a state of another batch": _tensor("state.1.0", torch.zeros(4, 2)),
    "steps that are a text": _numbers(average_steps="2"),
    "steps below 0": _numbers(average_steps=-1),
    "best weights that are not there": _tensor("best.decoder_bias", None),
    "best weights of another shape": _tensor("best.decoder_bias", torch.zeros(1)),
    "a best nll of another length": _tensor("best_nll", torch.zeros(3, dtype=torch.float64)),
    "a best nll of another type": _tensor("best_nll", torch.zeros(39, dtype=torch.bfloat16)),
    "lr that is not finite": _at(lr=float("nan")),
    "lr beyond any float": _at(lr=10**400),
    "a resume that is nothing": _at(resumed=None),
    "a row that is true": _at(row=True),
    "nlls that are one": _at(valid_nlls=1.5),
}


@pytest.mark.parametrize("change", FOUND.values(), ids=FOUND)
def test_what_the_drill_found_is_a_misfit_and_changes_nothing(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
) -> None:
    (tensors, numbers), _ = sound()[2]
    one: dict[str, torch.Tensor] = {name: tensor.clone() for name, tensor in tensors.items()}
    others = {**numbers, "at": {**numbers["at"]}}
    trainer = fuzz_state.new_trainer()
    before, said = take(trainer)
    put_back(fuzz_state.new_trainer(), (one, others))  # unchanged it fits
    change(one, others)
    with pytest.raises(Misfit):
        put_back(trainer, (one, others))
    after, now = take(trainer)
    assert now == said and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_epochs_that_are_none_are_no_checkpoint(tmp_path: Path) -> None:
    (tensors, numbers), _ = sound()[1]
    keeper = Keeper(open_storage(str(tmp_path)), RUN_ID, {})
    keeper.save(tensors, numbers, [{"epoch": 1}])
    keeper.save(tensors, numbers, [3])  # type: ignore[list-item]
    found = keeper.load()
    assert found is not None and found[2] == [{"epoch": 1}]


# --- options --------------------------------------------------------------------------------------

SCHEME = st.sampled_from(
    ["", "s3://", "s3a://", "gs://", "gcs://", "file://", "FILE://localhost", "memory://", "zip://",
     "http://", "sftp://", "webhdfs://", "github://", "reference://", "s3:", "x://", "~", "~nemo/"]
)  # fmt: skip
PIECE = st.one_of(
    st.sampled_from(
        ["/", "//", "..", ".", ":", "::", "@", "?", "&", "=", "%2e", "%2F", "%", "bucket", "b/f",
         "region=x", "scheme=http", "endpoint_override=", "[::1]", ":99", "60", "s", "2e", "off",
         "auto", "host:6379", "\\", "\udcff", "\u0663", "\u2028", "x" * 300]
    ),
    st.text(max_size=4),
)  # fmt: skip


@often(200)
@given(
    st.sampled_from(["s", "s", "r", "c", "a", "p"]),
    SCHEME,
    st.lists(PIECE, max_size=5).map("".join),
)
@example("s", "zip://", "a::s3://b/c")
@example("s", "http://", "[::1")
@example("c", "", "9" * 5000 + "s")
@example("c", "", "\u0661s")
@example("p", "", "\u0663")
@example("p", "", "9" * 5000)
@example("a", "", "host:\u00b2")
@example("a", "", "h:" + "9" * 5000)
def test_any_value_of_an_option_is_understood_or_one_line(
    feed: Feed, kind: str, scheme: str, rest: str
) -> None:
    text = scheme + rest if kind in "sr" else rest
    feed(
        OPTIONS, (kind + text).encode("utf-8", "surrogateescape" if "\udcff" in text else "replace")
    )


@pytest.mark.parametrize("name", ["BENCH_CACHE", "BENCH_DATA", "XDG_CACHE_HOME"])
def test_a_folder_of_nobody_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("BENCH_CACHE", "BENCH_DATA"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "~nemo/x")
    with pytest.raises(BadInput, match=f"{name} ~nemo/x"):
        default_data_dir() if name == "BENCH_DATA" else cache_dir()
