"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests share one cache of tokenised corpora, apart from the user's."""
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "bench-cache")


@pytest.fixture(autouse=True)
def _at_the_root() -> None:
    """Modules that tests start are found from where they stand; a test before may have moved."""
    os.chdir(Path(__file__).parent.parent)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Training in this process flushes denormals; hypothesis, for one, cannot do without them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def real_data() -> Path:
    """The folder of PTB and WikiText-2; CI must have it, elsewhere the test says it is absent."""
    folder = os.environ.get("BENCH_DATA")
    if folder and (Path(folder) / "ptb").is_dir():
        return Path(folder)
    if os.environ.get("CI"):
        pytest.fail("BENCH_DATA holds no corpora, and CI must not skip the tests that need them")
    pytest.skip("needs the real corpora: set BENCH_DATA to a folder that holds ptb/")


@dataclass(frozen=True)
class Outcome:
    """What a verb ended with."""

    code: object
    out: str
    err: str


Verb = Callable[..., Outcome]


@pytest.fixture
def verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Verb:
    """Runs `bench VERB …` in this process, in the folder `tmp_path`: verb("grid", "x.yaml")."""
    from bench.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "no-data"))

    def call(*words: object) -> Outcome:
        argv = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["bench", *argv])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(argv)
        captured = capsys.readouterr()
        return Outcome(end.value.code, captured.out, captured.err)

    return call
