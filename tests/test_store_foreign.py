"""What else lies in a results folder is named in one line, and neither stops nor hangs a load."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench import store
from bench.errors import BadInput
from bench.store.care import check, merge, prune
from bench.store.compact import compact
from bench.store.files import part_path
from tests.attempts import IDS, PAIR, TABLES, compacted, files, filled, seen, whole
from tests.conftest import Verb

ALL = dict(zip(IDS, range(5), strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    def hangs(*_: object) -> None:
        raise TimeoutError("a load hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield filled(tmp_path / "r")
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listening(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)  # the path as a whole may be too long for a socket


def of_another_run(path: Path) -> None:
    path.write_bytes(part_path(path.parent.parent, path.parent.name, IDS[1]).read_bytes())


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda p: p.mkdir(), "cannot be read: Is a directory"),
    "loop": (lambda p: p.symlink_to(p), "cannot be read: Too many levels of symbolic links"),
    "link to nothing": (lambda p: p.symlink_to("/no/file"), "cannot be read: is a link to nothing"),
    "link to a folder": (lambda p: p.symlink_to("/"), "cannot be read: Is a directory"),
    "link to a device": (lambda p: p.symlink_to("/dev/zero"), "cannot be read: is no file"),
    "pipe": (os.mkfifo, "cannot be read: is no file"),
    "socket": (listening, "cannot be read: No such device or address"),
    "empty": (lambda p: p.touch(), "not a whole Parquet file"),
    "text": (lambda p: p.write_text("not a table"), "not a whole Parquet file"),
    "huge": (lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_RDWR), 1 << 40), "is too large"),
    "other columns": (lambda p: pd.DataFrame({"x": [1]}).to_parquet(p), "not a record of ours"),
    "another run": (of_another_run, f"holds run {IDS[1]}, not the run of its name"),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_none_of_ours_is_named_in_one_line(results: Path, kind: str, table: str) -> None:
    make, why = FOREIGN[kind]
    path = part_path(results, table, IDS[3])
    path.unlink()
    make(path)
    for run_ids in (None, IDS, IDS[3:4]):
        load = store.load_runs if table == "runs" else store.load_epochs
        rows, problems = load(results, run_ids)
        (line,) = problems
        assert line.startswith(f"{path}: ") and why in line and line.isprintable()
        assert IDS[3] not in set(rows.run_id)
    expected = [i for i in IDS if table == "epochs" or i != IDS[3]]
    assert list(store.statuses(results, IDS)) == expected
    assert [line for line in check(results) if str(path) in line and why in line]
    number, problems = compact(results)
    assert number == 4 and len(problems) == 1 and why in problems[0]
    assert os.path.lexists(path), "what is not ours is left alone"


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "link to a device", "text", "empty"])
def test_among_compacted_files_it_is_named_and_nothing_is_run_again(
    results: Path, kind: str
) -> None:
    compact(results)
    make, _ = FOREIGN[kind]
    path = part_path(results, "runs", "compacted-0123456789abcdef")
    make(path)
    runs, problems = store.load_runs(results)
    assert runs.run_id.tolist() == IDS and len(problems) == 1
    assert problems[0].startswith(f"{path}: ") and problems[0].isprintable()
    assert [line for line in check(results) if str(path) in line]
    for act in (lambda: store.statuses(results, IDS), lambda: prune(results, IDS[:1])):
        with pytest.raises(BadInput, match=path.name):
            act()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert seen(results) == whole(ALL)


NAMES = [b"new\nline", b'quo"te', b"it's", b"tab\there", b"\xff\xfe", b"\xe2\x80\xae", b"x" * 240]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", TABLES)
def test_any_name_is_shown_in_one_line(results: Path, table: str, name: bytes, verb: Verb) -> None:
    path = Path(os.fsdecode(os.fsencode(results / table) + b"/" + name + b".parquet"))
    path.write_bytes(b"none of ours")
    if table == "runs":
        assert len(store.load_runs(results)[1]) == 1
        assert store.statuses(results, IDS) == dict.fromkeys(IDS, "ok")
    assert seen_beside(results) == whole(ALL)
    for act in (check, lambda r: compact(r)[1] or check(r), check):
        (line,) = act(results)
        assert line.isprintable() and line.startswith(str(results / table))
    outcome = verb("store", "check", "--results", results)
    assert outcome.code == 1 and len(outcome.out.splitlines()) == 2 and outcome.err == ""
    merge(results.parent / "t", [results])
    assert seen(results.parent / "t") == whole(ALL)
    prune(results, [])
    assert path.exists()
    path.unlink()
    assert files(results) == PAIR and seen(results) == whole(ALL)


def seen_beside(results: Path) -> dict[str, tuple[int, list[int]]]:
    """Returns what `seen` does, without its demand that there are no problems."""
    runs, curves = store.load_runs(results)[0], store.load_epochs(results)[0]
    return {
        run_id: (seed, curves.step[curves.run_id == run_id].tolist())
        for run_id, seed in zip(runs.run_id, runs.seed, strict=True)
    }


def test_what_may_not_be_read_is_a_line(tmp_path: Path) -> None:
    """As another user, for root may read all."""
    scratch = Path(tempfile.mkdtemp())
    scratch.chmod(0o755)
    results = filled(scratch / "r")
    part_path(results, "runs", IDS[2]).chmod(0)
    compacted_one = filled(scratch / "c")
    compact(compacted_one)
    compacted(compacted_one).chmod(0)
    (closed := filled(scratch / "d") / "runs").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        runs, problems = store.load_runs(results)
        assert len(runs) == 4 and len(problems) == 1
        assert problems[0].endswith(f"{IDS[2]}.parquet: cannot be read: Permission denied")
        with pytest.raises(BadInput, match="cannot be read: Permission denied; restore it"):
            store.statuses(compacted_one, IDS)
        for act in (store.load_runs, check, lambda r: store.statuses(r, IDS)):
            with pytest.raises(BadInput, match="runs: cannot be listed: Permission denied"):
                act(closed.parent)
    finally:
        os.seteuid(user)
        closed.chmod(0o755)
        shutil.rmtree(scratch)
