"""Grid files: a flipped bit is noticed, what is none of ours is a line, merge mixes none up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import report, store
from bench.errors import BadInput
from bench.store.care import check, merge, prune
from tests.attempts import IDS, filled
from tests.conftest import Verb

TRIAL = {"corpus": "c", "cell": "lstm", "nhid": 3, "lr": 2.0, "min_lr": 0.5, "optimizer": "sgd"}


def definition(name: str = "g", count: int = 3) -> dict[str, Any]:
    wanted = [
        {"run_id": run_id, "trial": TRIAL | {"regularizer": regularizer, "rep": rep}}
        for rep, run_id in enumerate(IDS[:count])
        for regularizer in ["ar:alpha=2"]
    ]
    head = {"name": name, "command": "python", "created_utc": "2026", "merged": 0}
    skipped = [{"cell": "a", "regularizer": "b", "reason": "c", "count": 1}]
    return head | {"wanted": wanted, "skipped": skipped}


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")  # an OSError would be taken for the file

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    store.save_grid(filled(tmp_path / "r"), definition())
    yield tmp_path / "r"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def file_of(results: Path, name: str = "g") -> Path:
    return results / "grids" / f"{name}.json"


def test_a_flipped_bit_is_noticed_wherever_it_is(results: Path) -> None:
    path = file_of(results)
    content = path.read_bytes()
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        try:
            found = store.load_grid(results, "g")
            assert {key: found[key] for key in definition()} == definition()
            assert b'"sha256"' in content[max(0, place - 8) : place + 9], (
                "only the key of the checksum"
            )
        except BadInput as error:
            assert str(path) in str(error) and "start the grid again" in str(error)
    store.save_grid(results, definition())
    assert path.read_bytes() == content


def test_check_names_it_and_the_report_does_not_draw_it(results: Path, verb: Verb) -> None:
    path = file_of(results)
    assert check(results) == []
    path.write_bytes(path.read_bytes().replace(b"alpha=2", b"alpha=3"))
    (line,) = check(results)
    assert line.startswith(f"{path}: not a grid of ours") and "checksum" in line
    outcome = verb("store", "check", "--results", results)
    assert outcome.code == 1 and "5 records, 1 problem" in outcome.out
    for act in (report.build, report.export):
        with pytest.raises(BadInput, match="checksum"):
            act(results, "g")
    assert "checksum" in report.build_all(results).read_text()


def test_files_from_before_there_were_checksums_are_read(results: Path) -> None:
    path = file_of(results)
    plain = json.loads(path.read_bytes())
    said = plain.pop("sha256")
    path.write_text(json.dumps(plain))
    assert store.load_grid(results, "g") == definition()
    path.write_text(json.dumps({"sha256": said} | plain))
    with pytest.raises(BadInput, match="checksum"):
        store.load_grid(results, "g")


ODD = [
    ("rep", "x"), ("rep", None), ("rep", []), ("rep", True), ("rep", 1e400), ("rep", 10**400),
    ("lr", "2"), ("lr", float("nan")), ("nhid", None), ("nhid", {}), ("corpus", 5),
    ("cell", ["lstm"]), ("regularizer", None), ("tied", [1]), ("later", {"a": 1}),
    ("run_id", [1]), ("run_id", None), ("run_id", "../../x"), ("trial", [1]), ("trial", None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ODD, ids=lambda one: str(one)[:20])
def test_values_that_no_trial_has_are_one_line(results: Path, key: str, value: object) -> None:
    grid = definition()
    entry = grid["wanted"][1]
    (entry if key in entry else entry["trial"])[key] = value
    file_of(results).write_text(json.dumps(grid))
    for act in (report.build, report.export):
        with pytest.raises(BadInput, match=r"g\.json: not a grid of ours"):
            act(results, "g")
    assert len(check(results)) == 1
    assert "unreadable" in report.build_all(results).read_text()
    prune(results, [])


@pytest.mark.parametrize("text", ["5", "null", "[]", '"x"', '{"wanted": 5}', '{"common": []}'])
def test_what_is_no_definition_is_one_line(results: Path, text: str) -> None:
    whole = definition() | json.loads(text) if text.startswith("{") else json.loads(text)
    file_of(results).write_text(json.dumps(whole))
    with pytest.raises(BadInput, match="not a grid of ours"):
        store.load_grid(results, "g")


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "link to nothing": lambda p: p.symlink_to("/no/file"),
    "loop": lambda p: p.symlink_to(p),
    "link to a device": lambda p: p.symlink_to("/dev/zero"),
    "folder": lambda p: p.mkdir(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_neither_stops_nor_hangs_the_others(results: Path, kind: str) -> None:
    KINDS[kind](file_of(results, "x"))
    assert sorted(store.grid_names(results)) == ["g", "x"]
    assert report.build(results, "g").exists()
    assert "x.json: cannot be read" in report.build_all(results).read_text()
    (line,) = check(results)
    assert line.startswith(f"{file_of(results, 'x')}: cannot be read: ")
    prune(results, [])


def test_merge_shows_no_reader_half_a_definition(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    large = definition("large")
    large["wanted"] = [e | {"run_id": f"{i:012x}"} for i in range(9000) for e in large["wanted"]]
    store.save_grid(results, large)
    whole = file_of(results, "large").read_bytes()
    store.prepare(target)
    path, met, ended = file_of(target, "large"), set[int](), threading.Event()

    def look() -> None:
        while not ended.is_set():
            with contextlib.suppress(FileNotFoundError):
                met.add(len(path.read_bytes()))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(5):
            path.unlink(missing_ok=True)
            merge(target, [results])
    finally:
        ended.set()
        reader.join()
    assert met <= {len(whole)} and path.read_bytes() == whole


def test_merge_replaces_a_definition_that_cannot_be_read(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    store.prepare(target)
    file_of(target).write_bytes(file_of(results).read_bytes()[:100])
    assert merge(target, [results]) == (5, [])
    assert file_of(target).read_bytes() == file_of(results).read_bytes()
    file_of(results).write_text("{")
    count, (line,) = merge(target, [results])
    assert count == 0 and "not a grid of ours" in line
    assert store.load_grid(target, "g") == definition()


def test_merge_says_when_two_grids_have_one_name(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    store.prepare(target)
    store.save_grid(target, definition() | {"command": "another"})
    assert merge(target, [results]) == (5, []), "they want the same"
    store.save_grid(target, definition(count=2))
    count, (line,) = merge(target, [results])
    assert count == 0 and line.startswith(f"{file_of(results)}: not taken") and "(2, not" in line
    assert store.load_grid(target, "g") == definition(count=2)
