"""Checkpoints: whole or not there, the last two, and never those of another trial or machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bench import checkpoint
from bench.checkpoint import Keeper, Rhythm, drop, parse_every
from bench.errors import BadInput
from bench.storage import open_storage

ABOUT = {"device": "a CPU", "torch": "2", "threads": 1}
NUMBERS = {"at": {"lr": 0.1, "best_valid": None}, "state": [2]}
EPOCHS = [{"epoch": 1, "train_nll": 1 / 3, "valid_nll": 5e-324}]


def keeper(folder: Path, run_id: str = "0123456789ab", **about: Any) -> Keeper:
    return Keeper(open_storage(str(folder)), run_id, ABOUT | about)


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {
        "model.weight": torch.full((3, 2), value),
        "best_nll": torch.tensor([value, 1e-300], dtype=torch.float64),
        "model.count": torch.tensor(7),
        "state.0.0": torch.zeros(0, 4),
    }


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def loaded(one: Keeper) -> float | None:
    found = one.load()
    return None if found is None else float(found[0]["model.weight"][0, 0])


def test_it_comes_back_to_the_bit(tmp_path: Path) -> None:
    keeper(tmp_path).save(tensors(0.1), NUMBERS, EPOCHS)
    found = keeper(tmp_path).load()
    assert found is not None
    assert found[1:] == (NUMBERS, EPOCHS)
    assert found[0].keys() == tensors(0.1).keys()
    for name, tensor in tensors(0.1).items():
        assert found[0][name].dtype == tensor.dtype and torch.equal(found[0][name], tensor)


def test_the_last_two_are_kept_until_they_are_dropped(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    for n in range(1, 13):
        one.save(tensors(n), NUMBERS, EPOCHS)
        assert loaded(one) == n
        assert len(files(tmp_path)) == min(n, 2)
    keeper(tmp_path, "ba9876543210").save(tensors(1), NUMBERS, [])
    drop(open_storage(str(tmp_path)), "0123456789ab")
    assert len(files(tmp_path)) == 1 and loaded(one) is None


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "longer", "gone"])
def test_for_a_damaged_one_the_one_before_serves(how: str, tmp_path: Path) -> None:
    one = keeper(tmp_path)
    for n in (1, 2):
        one.save(tensors(n), NUMBERS, EPOCHS)
    for expected in (1, None):
        last = files(tmp_path)[-1]
        content = bytearray(last.read_bytes())
        if how == "gone":
            last.unlink()
        else:
            content[len(content) // 2] ^= 4
            damaged: dict[str, bytes] = {
                "cut": bytes(content[:-1]),
                "flipped": bytes(content),
                "empty": b"",
                "longer": bytes(content * 2),
            }
            last.write_bytes(damaged[how])
        assert loaded(keeper(tmp_path)) == expected
        assert not last.exists(), "or it would count among the two that are kept"
    one.save(tensors(9), NUMBERS, EPOCHS)
    assert loaded(one) == 9, "it goes on writing"


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    one.save(tensors(1), NUMBERS, EPOCHS)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        assert one.load() is None


@pytest.mark.parametrize(
    "about", [{"device": "another CPU"}, {"torch": "3"}, {"threads": 2}, {"cuda": "13"}]
)
def test_one_from_another_machine_is_not_gone_on_with(
    about: dict[str, Any], tmp_path: Path
) -> None:
    """A record of such a run would be true of neither."""
    keeper(tmp_path).save(tensors(1), NUMBERS, EPOCHS)
    assert keeper(tmp_path, **about).load() is None
    assert loaded(keeper(tmp_path)) == 1


def forged(tmp_path: Path, content: bytes) -> None:
    """Writes a checkpoint of the right name whose content somebody else chose."""
    import hashlib

    digest = hashlib.sha256(content).hexdigest()[:16]
    path = tmp_path / "checkpoints" / "0123456789ab" / f"000009-{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def said(**changes: Any) -> str:
    whole = {"format": checkpoint.FORMAT, "run_id": "0123456789ab", "about": ABOUT}
    return json.dumps(whole | {"numbers": NUMBERS, "epochs": EPOCHS} | changes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 80,
        (10**12).to_bytes(8, "little") + b"{}",
        b"\x80\x04\x95" * 20,
        save({"x": torch.zeros(1)}),
        save({"x": torch.zeros(1)}, {"bench": "no JSON"}),
        save({"x": torch.zeros(1)}, {"bench": "[" * 100_000}),
        save({"x": torch.zeros(1)}, {"bench": said(format=checkpoint.FORMAT + 1)}),
        save({"x": torch.zeros(1)}, {"bench": said(run_id="another")}),
        save({"x": torch.zeros(1)}, {"bench": said(numbers=3)}),
        save({"x": torch.zeros(1)}, {"bench": said(epochs=3)}),
        save({"x": torch.zeros(9)}, {"bench": said()})[:-8],
    ],
)
def test_what_others_wrote_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    keeper(tmp_path).save(tensors(1), NUMBERS, EPOCHS)
    forged(tmp_path, content)
    assert loaded(keeper(tmp_path)) == 1


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "0123456789ab"
    (folder / "000001-0123456789abcdef.safetensors").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    one = keeper(tmp_path)
    for n in range(3):
        one.save(tensors(n), NUMBERS, [])
    assert loaded(one) == 2 and (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "seconds", "epochs"),
    [("60s", 60.0, None), ("0.5s", 0.5, None), ("0s", 0.0, None), ("2e", None, 2)],
)
def test_how_often(text: str, seconds: float | None, epochs: int | None) -> None:
    assert parse_every(text) == (seconds, epochs)
    assert parse_every("off") == (None, None)


@pytest.mark.parametrize(
    "text", ["", "60", "s", "e", "0e", "-1s", "1.5e", "1h", "nans", "1e9s", "x"]
)
def test_how_often_in_no_words_of_ours(text: str) -> None:
    with pytest.raises(BadInput, match="--checkpoint-every"):
        parse_every(text)


def test_by_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    rhythm = Rhythm("2e")
    assert [rhythm.due(n) for n in (None, 1, 2, 3, 4)] == [False, False, True, False, True]
    assert not Rhythm("off").due(None) and not Rhythm("off").due(2)


def test_by_seconds_and_never_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rhythm = Rhythm("10s")
    due = []
    for second in range(101, 400):
        now[0] = float(second)
        if rhythm.due(None):
            due.append(second)
            rhythm.written(2.0 if len(due) == 1 else 0.1)
    assert due[:4] == [110, 150, 160, 170], "two seconds are a twentieth of forty"
