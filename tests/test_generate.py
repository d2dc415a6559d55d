"""`python -m bench.generate`: text from the best weights, or the command that makes them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import store
from bench.corpora import load
from bench.generate import _sample
from bench.plugins import find
from tests.conftest import Outcome, Verb
from tests.grids import rogue

CORPUS = "synthetic:train=3000:valid=400:test=300"
TRIAL = [
    *["--corpus", CORPUS, "--nhid", 12, "--emsize", 8, "--epochs", 2, "--bptt", 10],
    *["--batch-size", 5, "--lr", 7.5, "--dropout", 0.1, "--rep", 2, "--no-report"],
]


def train(verb: Verb, *words: object, keep: str = "best", results: str = "results") -> str:
    """Trains the tiny trial in `verb`'s folder and returns its run_id."""
    outcome = verb("train", *TRIAL, *words, "--keep-weights", keep, "--results", results)
    assert outcome.code == 0, outcome
    (path,) = Path(results, "runs").iterdir()
    return path.stem


def vocabulary() -> set[str]:
    return set(load(CORPUS, Path()).vocab)


def refused(outcome: Outcome, line: str) -> None:
    assert outcome.code == 2 and outcome.out == "", outcome
    assert outcome.err.startswith("bench: ") and line in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generate")


@pytest.fixture
def trained(folder: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run_id of a trial that is trained once; its results are in the working folder."""
    monkeypatch.chdir(folder)
    return train(verb)


def test_text_has_the_asked_number_of_words_all_of_the_vocabulary(trained: str, verb: Verb) -> None:
    outcome = verb("generate", trained, "--words", 700)
    assert outcome.code == 0 and outcome.err == ""
    words = outcome.out.split()
    assert len(words) == 700
    assert set(words) <= vocabulary() - {"<eos>", "<unk>"}
    assert len(set(words)) > 30, "a text, not a word"
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_same_seed_same_text_other_seed_other_text(trained: str, verb: Verb) -> None:
    texts = [verb("generate", trained, "--words", 50, "--seed", seed).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_low_temperature_repeats_itself(trained: str, verb: Verb) -> None:
    cold, mild, hot = (
        len(set(verb("generate", trained, "--words", 300, "--temperature", t).out.split()))
        for t in (0.1, 1, 5)
    )
    assert cold < mild / 2 and mild < hot


def test_eos_breaks_lines(trained: str, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = verb("generate", trained, "--words", 300, "--eos")
    words = outcome.out.split()
    assert 100 < len(words) < 300 and set(words) <= vocabulary() - {"<eos>", "<unk>"}
    assert outcome.out.count("\n") >= 300 - len(words), "a line ends at each of the others"
    text = ["the", "<eos>", "<eos>", "x<eos>y", "b-c", "<eos>", "d"]
    monkeypatch.setattr("bench.generate._sample", lambda *_: text)
    assert verb("generate", trained, "--eos").out == "the\n\nx<eos>y b-c\nd\n"


def test_a_word_is_never_cut_at_the_end_of_a_line(
    trained: str, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ["n" * 98, "two-part", "w" * 300, "z"]
    monkeypatch.setattr("bench.generate._sample", lambda *_: text)
    assert verb("generate", trained).out.splitlines() == text


def test_a_unique_beginning_of_the_id_is_enough(trained: str, verb: Verb) -> None:
    whole = verb("generate", trained, "--words", 20)
    assert verb("generate", trained[:4], "--words", 20) == whole
    refused(verb("generate", ""), f"results: no run with the id ''. Known: {trained}.")


def test_an_ambiguous_beginning_names_the_runs(verb: Verb) -> None:
    from tests.records import record

    store.prepare(Path("results"))
    for run_id in ("aa0000000001", "aa0000000002", "bb0000000001"):
        store.write_run(Path("results"), record(run_id))
    refused(
        verb("generate", "aa"),
        "results: 2 runs with the id 'aa'. Known: aa0000000001, aa0000000002.\n",
    )


def test_an_unknown_id_is_answered_with_the_nearest(trained: str, verb: Verb) -> None:
    wrong = trained[:-1] + ("0" if trained[-1] != "0" else "1")
    refused(
        verb("generate", wrong), f"results: no run with the id '{wrong}'. Did you mean {trained}?"
    )
    refused(
        verb("generate", trained, "--results", "absent"),
        f"absent: no run with the id '{trained}'. Known: none.",
    )


def test_without_weights_the_printed_command_makes_them(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rogue(tmp_path / "my plugins", "own")
    options = ("--cell", "own", "--regularizer", "tar+ar:alpha=0.5", "--plugins", "my plugins")
    run_id = train(
        verb, *options, "--min-lr", 1e-9, "--wdecay", 3e-5, "--tied", "true", keep="none"
    )
    path = Path("results", "weights", f"{run_id}.safetensors")
    outcome = verb("generate", run_id)
    assert outcome.code == 2 and outcome.out == ""
    line, command = outcome.err.splitlines()
    assert line == f"bench: {path}: no weights were kept (ok); this command makes them:"
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "bench.train"] and words[-2:] == ["--rerun", "all"]
    assert words[words.index("--plugins") + 1] == str(tmp_path / "my plugins")
    assert not path.exists()
    assert verb("train", *words[3:]).code == 0
    assert path.is_file()
    assert store.load_runs(Path("results"))[0].run_id.tolist() == [run_id]
    assert len(verb("generate", run_id, "--words", 9, "--plugins", "my plugins").out.split()) == 9
    refused(
        verb("generate", run_id),
        f"run {run_id}: cell: no cell is called 'own'. Known: {', '.join(sorted(find()['cell']))}. "
        f"It was found in {tmp_path / 'my plugins'}: see --plugins.\n",
    )


def test_the_printed_command_is_short_where_values_are_the_default_ones(verb: Verb) -> None:
    run_id = train(verb, keep="none", results="other place")
    # Only what differs from the defaults, and the folders.
    outcome = verb("generate", run_id, "--results", "other place", "--data-dir", "d")
    assert outcome.err.splitlines()[1] == (
        "python -m bench.train --corpus synthetic:train=3000:valid=400 --nhid 12 --emsize 8 "
        "--dropout 0.1 --bptt 10 --batch-size 5 --epochs 2 --lr 7.5 --rep 2 --data-dir d "
        "--results 'other place' --rerun all"
    )


def test_a_changed_plugin_is_refused(verb: Verb, tmp_path: Path) -> None:
    path = rogue(tmp_path / "p", "own")
    run_id = train(verb, "--cell", "own", "--plugins", "p")
    generate = ("generate", run_id, "--plugins", "p", "--words", 5)
    assert verb(*generate).code == 0
    path.write_text("# a comment changes nothing\n" + path.read_text())
    assert verb(*generate).code == 0
    rogue(tmp_path / "p", "own", init="self.more = 1")
    refused(
        verb(*generate), f"{path}: has changed since run {run_id}; its weights belong to source"
    )


def test_text_comes_from_a_model_in_evaluation(verb: Verb, tmp_path: Path) -> None:
    only_here = "assert not (self.training and x.shape[1] == 1), 'one column: text is sampled'"
    rogue(tmp_path / "p", "strict", call=only_here)
    run_id = train(verb, "--cell", "strict", "--plugins", "p")
    assert verb("generate", run_id, "--plugins", "p", "--words", 5).code == 0


def test_weights_that_are_not_its_own_are_refused(trained: str, verb: Verb) -> None:
    from safetensors.torch import load_file, save_file

    path = Path("results", "weights", f"{trained}.safetensors")
    whole = path.read_bytes()
    refusal = f"{path}: not this run's weights: "
    try:
        for content in (b"", b"no weights", whole[:-9], whole[: len(whole) // 2]):
            path.write_bytes(content)
            refused(verb("generate", trained), refusal)
        path.write_bytes(whole)
        weights = load_file(path)
        one = next(iter(weights))
        for wrong in ({}, weights | {"more": torch.ones(2)}, weights | {one: torch.ones(2)}):
            save_file(wrong, path)
            refused(verb("generate", trained), refusal)
        save_file(weights | {one: torch.full_like(weights[one], torch.nan)}, path)
        refused(verb("generate", trained), refusal)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--words", "0", "--words 0: must be from 1 to 10,000,000"),
        ("--words", "-3", "--words -3: must be from 1"),
        ("--words", "99999999999", "--words 99999999999: must be from 1"),
        ("--words", "many", "Invalid value for '--words': "),
        ("--temperature", "0", "--temperature 0: must be from 0.01 to 100"),
        ("--temperature", "nan", "--temperature nan: must be"),
        ("--temperature", "inf", "--temperature inf: must be"),
        ("--temperature", "warm", "Invalid value for '--temperature': "),
        ("--seed", "-1", "--seed -1: must be from 0"),
        ("--seed", str(2**70), "must be from 0 to 2^63 - 1"),
    ],
)
def test_bad_options(option: str, value: str, line: str, verb: Verb) -> None:
    refused(verb("generate", "0123456789ab", option, value), line)


def test_a_diverged_run_has_no_weights(verb: Verb) -> None:
    run_id = train(verb, "--lr", 1e30, "--clip", 1e30)
    assert store.load_runs(Path("results"))[0].status.tolist() == ["diverged"]
    refused(verb("generate", run_id), f"run {run_id} diverged: it has no weights")


def test_a_text_of_unknown_words_has_none_to_give(verb: Verb, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("<unk>\n" * 200)
    run_id = train(verb, "--corpus", f"folder:path={tmp_path}")
    refused(verb("generate", run_id), "no other words: add --eos or --unk")
    assert verb("generate", run_id, "--eos", "--words", 3).out == "\n\n\n"
    assert verb("generate", run_id, "--unk", "--words", 3).out == "<unk> <unk> <unk>\n"


class Equal:
    """A model that finds every word equally likely, and keeps what it was shown."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.shown: list[int] = []

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def logits(self, tokens: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        self.shown.append(int(tokens))
        return torch.zeros(1, 1, self.size), state


@pytest.mark.parametrize("banned", [set(), {"<eos>"}, {"<unk>"}, {"<eos>", "<unk>"}])
def test_sampling_bans_and_feeds_back(banned: set[str]) -> None:
    vocab = ["a", "<eos>", "b", "<unk>"]
    model = Equal(len(vocab))
    text = _sample(model, vocab, 200, 1.0, 0, banned)
    assert set(text) == set(vocab) - banned
    # It begins after the end of a line, and reads each word that it wrote.
    assert [vocab[i] for i in model.shown] == ["<eos>", *text[:-1]]
