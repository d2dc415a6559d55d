"""What SECURITY.md says of data from others: the verbs run none of it and stay in their folders."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench import store
from bench.corpora import download, load
from bench.errors import BadInput
from bench.store.compact import compact
from tests.conftest import Verb
from tests.grids import ROOT, grid_file
from tests.records import epochs, record
from tests.test_bad_input import refused
from tests.test_corpora_download import TEXTS, Server, files, server

__all__ = ["server"]  # a fixture
HERE = ("--backend", "local", "--jobs", 0)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def deep(verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the verbs run in, with two above it that are watched."""
    folder = tmp_path / "above" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


# --- code beside the records ----------------------------------------------------------------------


def test_code_in_a_results_folder_is_never_run(verb: Verb, tmp_path: Path, deep: Path) -> None:
    mark = tmp_path / "it ran"
    evil = f"open({str(mark)!r}, 'w')\n"
    grid = grid_file(tmp_path, "{cell: [lstm]}", extra="keep_weights: best")
    assert verb("grid", grid, *HERE, "--no-report").code == 0
    [run_id] = [p.stem for p in Path("results/runs").glob("*.parquet")]
    for name in ("cells/evil", "cells/lstm", "cells/__init__", "regularizers/none", "conftest"):
        path = Path("results", f"{name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(evil)
    for name in ("sitecustomize", "torch", "runs/pandas", "grids/yaml", "weights/safetensors"):
        Path("results", f"{name}.py").write_text(evil)
    for words in (
        ("report",), ("report", "tiny"), ("store", "check"), ("store", "compact"),
        ("store", "orphans"), ("store", "prune", "--yes"), ("store", "merge", "results"),
        ("plugins", "list"), ("corpora", "list"), ("generate", run_id, "--words", 5),
        ("grid", grid, *HERE, "--no-report"), ("grid", grid, "--dry-run"),
    ):  # fmt: skip
        outcome = verb(*words)
        assert outcome.code == (2 if "merge" in words else 0), (words, outcome)
    refused(verb("grid", grid, "--set", "cell=evil", *HERE), "no cell is called 'evil'")
    assert not mark.exists()


def test_python_runs_what_lies_in_its_folder_unless_it_is_told_not_to(tmp_path: Path) -> None:
    """As SECURITY.md says: no line of ours is read before that, so no line of ours can help."""
    mark = tmp_path / "it ran"
    for name in ("typer.py", "bench/__init__.py"):
        folder = tmp_path / name.partition(".")[0].replace("/", "-")
        store.prepare(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(mark)!r}, 'w')\n")
        for safe in ("1", ""):  # an empty one is none
            words = [sys.executable, "-m", "bench.report", "--results", "."]
            changes = {"PYTHONSAFEPATH": safe, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(words, cwd=folder, env=os.environ | changes, capture_output=True)
            assert mark.exists() == (safe == ""), (name, safe, done.stderr)
        mark.unlink()


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "it ran")


def test_a_pickle_in_the_place_of_anything_is_only_a_broken_file(
    verb: Verb, tmp_path: Path, deep: Path
) -> None:
    mark = tmp_path / "it ran"
    bomb = pickle.dumps(_Bomb(mark))
    grid = grid_file(tmp_path, "{cell: [lstm]}", extra="keep_weights: best")
    assert verb("grid", grid, *HERE, "--no-report").code == 0
    [run_id] = [p.stem for p in Path("results/runs").glob("*.parquet")]
    Path(f"results/weights/{run_id}.safetensors").write_bytes(bomb)
    refused(verb("generate", run_id), "not this run's weights")
    for name in ("runs/0123456789ab.parquet", "runs/compacted-x.parquet", "epochs/abc.parquet"):
        Path("results", name).write_bytes(bomb)
    Path("results/grids/other.json").write_bytes(bomb)
    assert verb("store", "check").code == 1
    assert verb("report", "tiny").code == 0
    refused(verb("report", "other"), "not a grid of ours")
    (tmp_path / "bomb.yaml").write_bytes(bomb)
    refused(verb("grid", tmp_path / "bomb.yaml"), "bomb.yaml")
    tagged = '!!python/object/apply:os.system ["touch ' + str(mark) + '"]'
    (tmp_path / "tag.yaml").write_text(f"name: x\nbase: {tagged}\n")
    refused(verb("grid", tmp_path / "tag.yaml"), "tag.yaml")
    for split in TEXTS:
        (tmp_path / f"{split}.txt").write_bytes(bomb)
    corpus = f"corpus=folder:path={tmp_path}"
    assert verb("grid", grid, "--set", corpus, *HERE, "--no-report").code == 2
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists(), "the bomb is none: this test shows nothing"


# --- names that are paths -------------------------------------------------------------------------

OUTSIDE = ["../x", "../../x", "/etc/x", "..", ".", "a/b", "a\\b", "../x.yaml"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "words",
    [
        ("report", "NAME"),
        ("generate", "NAME"),
        ("grid", "NAME"),
        ("grid", "quick", "--name", "NAME", "--set", "nhid=8", "--dry-run"),
        ("grid", "quick", "--set", "cell=NAME", "--dry-run"),
        ("grid", "quick", "--set", "regularizer=NAME", "--dry-run"),
        ("grid", "quick", "--set", "corpus=NAME", "--dry-run"),
        ("corpora", "show", "NAME"),
        ("corpora", "fetch", "NAME"),
        ("plugins", "show", "NAME"),
        ("plugins", "new", "cell", "NAME"),
        ("store", "check", "--results", "NAME"),
    ],
    ids=" ".join,
)
def test_a_name_is_no_path(
    verb: Verb, deep: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    before = everything(tmp_path)
    refused(verb(*[word.replace("NAME", name) for word in words]), "")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".hidden"])
def test_the_name_inside_a_grid_file_is_no_path(
    verb: Verb, deep: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "tiny.yaml"
    grid_file(tmp_path, "{cell: [lstm]}")
    path.write_text(path.read_text().replace("name: tiny", f"name: {name}"))
    before = everything(tmp_path)
    refused(verb("grid", path, *HERE), "name")
    assert everything(tmp_path) == before


# --- records of others ----------------------------------------------------------------------------


def foreign(folder: Path, run_id: str) -> None:
    """Writes a results folder whose one compacted file holds a run of that id."""
    store.prepare(folder)
    store.write_run(folder, record(), epochs())
    compact(folder)
    for table in ("runs", "epochs"):
        [path] = (folder / table).glob("*.parquet")
        rows = pq.read_table(path)
        place, ids = rows.column_names.index("run_id"), [run_id] * len(rows)
        rows = rows.set_column(place, rows.schema.field("run_id"), [ids])
        rows = rows.replace_schema_metadata(None)  # no seal, as in files from before there were any
        path.unlink()
        pq.write_table(rows, folder / table / "compacted-foreign.parquet")


@pytest.mark.parametrize("run_id", ["../../victim", "../weights/x", "/tmp/victim", "..", "a/b"])
def test_a_run_id_of_others_is_no_path(verb: Verb, deep: Path, tmp_path: Path, run_id: str) -> None:
    for suffix in ("parquet", "safetensors"):
        (tmp_path / "above" / f"victim.{suffix}").write_text("mine")
        (deep / f"victim.{suffix}").write_text("mine")
    foreign(deep / "theirs", run_id)
    outside = {k: v for k, v in everything(tmp_path).items() if "/here/" not in k}
    victims = {p: p.read_text() for p in deep.glob("victim.*")}
    theirs = everything(deep / "theirs")
    for words in (
        ("store", "merge", "theirs"), ("store", "check"), ("store", "compact"),
        ("store", "orphans"), ("store", "prune", "--yes"), ("report",), ("generate", run_id),
    ):  # fmt: skip
        assert verb(*words).code in (0, 1, 2), words
        assert {p: p.read_text() for p in deep.glob("victim.*")} == victims, words
    assert everything(deep / "theirs") == theirs
    for words in (("store", "prune", "--yes"), ("store", "compact"), ("store", "check")):
        assert verb(*words, "--results", "theirs").code in (0, 1), words
        assert {p: p.read_text() for p in deep.glob("victim.*")} == victims, words
    now = {k: v for k, v in everything(tmp_path).items() if "/here/" not in k}
    assert now == outside
    assert {p.name for p in deep.iterdir()} <= {"results", "theirs", *(p.name for p in victims)}


# --- downloads ------------------------------------------------------------------------------------


def test_one_wrong_byte_gets_no_name(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.offer(monkeypatch, "spoilt")
    server.pages["spoilt"] = TEXTS["train"].replace(b"a", b"z")
    with pytest.raises(BadInput, match="found SHA-256"):
        load("ptb", tmp_path)
    assert files(tmp_path / "ptb") == {} and list((tmp_path / "ptb").rglob("*.txt")) == []
    server.pages["spoilt"] = TEXTS["train"]
    with pytest.raises(BadInput, match=r"ptb.valid.txt could not be downloaded"):
        load("ptb", tmp_path)
    assert files(tmp_path / "ptb") == {"ptb.train.txt": TEXTS["train"]}
    assert download.sha256_of(tmp_path / "ptb" / "ptb.train.txt")


# --- a private Ray --------------------------------------------------------------------------------

INSPECT = """
import json, os, psutil, subprocess, sys
from types import SimpleNamespace
from bench.backends.ray_cluster import Resources, cluster

ask = "import sys; from ray._raylet import GcsClient; "
ask += "print(len(GcsClient(address=sys.argv[1]).get_all_node_info()))"

def answers(**changes):
    done = subprocess.run([sys.executable, "-c", ask, address], env=os.environ | changes,
                          capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and done.stdout.strip() == "1"

with cluster(None, Resources(1, 0, 1), SimpleNamespace(threads=1, plugins=None)):
    import ray
    address = ray.get_runtime_context().gcs_address
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            sockets = [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
            mode = process.environ().get("RAY_AUTH_MODE")
            found.append([" ".join(process.cmdline()), mode, sockets])
        except psutil.NoSuchProcess:
            pass
    print(json.dumps({
        "processes": found,
        "with": answers(),
        "without": answers(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=""),
        "wrong": answers(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64),
    }))
"""


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_private_ray_asks_for_a_token_and_has_no_dashboard(tmp_path: Path) -> None:
    """Also that it listens on all interfaces: SECURITY.md says so, and must not when it changes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", INSPECT],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["with"] and not found["without"] and not found["wrong"]
    lines = {line: mode for line, mode, _ in found["processes"]}
    assert any("gcs_server" in line for line in lines) and any("raylet" in line for line in lines)
    assert {m for line, m in lines.items() if "/core/src/ray/" in line} == {"token"}
    # Ray starts that process all the same; without modules it serves nobody.
    assert [s for line, _, s in found["processes"] if "dashboard/dashboard.py" in line] == [[]]
    listening = {ip for _, _, sockets in found["processes"] for ip in sockets}
    assert "::" in listening or "0.0.0.0" in listening, "mend the words of SECURITY.md"
