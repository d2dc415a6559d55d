"""`python -m bench.generate RUN_ID`: text from a run's best weights."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.config import Trial
    from bench.store.mirror import Results

app = typer.Typer(add_completion=False, rich_markup_mode=None)
EOS, UNK = "<eos>", "<unk>"


@app.command()
def generate(
    run_id: str,
    words: Annotated[int, typer.Option(help="How many words.")] = 1000,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 wilder.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    eos: Annotated[bool, typer.Option("--eos", help="Let lines end.")] = False,
    unk: Annotated[bool, typer.Option("--unk", help="Let <unk> occur.")] = False,
    results: Annotated[
        str, typer.Option(metavar="DIR|URL", help="Folder of the records.")
    ] = "results",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the corpora.")] = None,
    plugins: Annotated[Path | None, typer.Option(help="A further plugin folder.")] = None,
) -> None:
    """Sample text from a run's best weights; <eos> and <unk> are left out unless asked for."""
    from bench.errors import BadInput

    if not 1 <= words <= 10_000_000:
        raise BadInput(f"--words {words}: must be from 1 to 10,000,000")
    if not 0.01 <= temperature <= 100:
        raise BadInput(f"--temperature {temperature:g}: must be from 0.01 to 100")
    if not 0 <= seed < 2**63:
        raise BadInput(f"--seed {seed}: must be from 0 to 2^63 - 1")
    from bench.store.mirror import results_folder

    with results_folder(results, write=False) as opened:
        model, vocab = _load(run_id, opened, data_dir, plugins)
    banned = {word for word, wanted in ((EOS, eos), (UNK, unk)) if not wanted}
    if banned.issuperset(vocab):
        raise BadInput("the vocabulary holds no other words: add --eos or --unk")
    line: list[str] = []
    for word in _sample(model, vocab, words, temperature, seed, banned):
        if word != EOS:
            line.append(word)
            continue
        print(_fill(line))
        line = []
    if line:
        print(_fill(line))


def _fill(words: list[str]) -> str:
    return textwrap.fill(" ".join(words), 100, break_long_words=False, break_on_hyphens=False)


def _load(
    run_id: str, results: Results, data_dir: Path | None, plugins: Path | None
) -> tuple[Any, list[str]]:
    """Returns the run's model with its best weights, and its vocabulary."""
    from bench.config import FIELDS, Trial
    from bench.corpora import default_data_dir, load
    from bench.errors import BadInput, nearest, one_line
    from bench.plugins import find, load_class, select_cell
    from bench.store import load_runs

    runs, _ = load_runs(results.folder)
    matching = runs[runs.run_id.str.startswith(run_id)] if run_id else runs[:0]
    if len(matching) != 1:
        what, ids = ("no run", runs) if matching.empty else (f"{len(matching)} runs", matching)
        raise BadInput(
            f"{results.location}: {what} with the id {one_line(run_id, 40)!r}. "
            f"{nearest(run_id, ids.run_id)}"
        )
    record = matching.iloc[0].to_dict()
    run_id = record["run_id"]
    if record["status"] == "diverged":
        raise BadInput(f"run {run_id} diverged: it has no weights")
    # NaN, by which pandas tells null, is no value of a field.
    values = {name: record[name] for name in FIELDS if record[name] == record[name]}
    trial = Trial(**values)
    name = f"weights/{run_id}.safetensors"
    results.fetch(name)
    path = results.folder / name
    if not path.is_file():
        raise BadInput(
            f"{path}: no weights were kept ({record['status']}); this command makes them:",
            detail=_command(trial, record["plugin_origin"], results.location, data_dir, plugins),
        )
    try:
        cell = select_cell(trial.cell, find(plugins))
    except BadInput as error:
        folder = _plugin_folder(record["plugin_origin"])
        hint = f" It was found in {folder}: see --plugins." if folder else ""
        raise BadInput(f"run {run_id}: {error}{hint}", error.detail) from None
    if cell.plugin.hash != record["cell_source"]:
        raise BadInput(
            f"{cell.plugin.path}: has changed since run {run_id}; its weights belong to "
            f"source {record['cell_source']}, not to {cell.plugin.hash}"
        )
    import functools

    import safetensors
    from safetensors.torch import load_file

    from bench.model import build
    from bench.precision import DTYPES

    corpus = load(trial.corpus, data_dir or default_data_dir(), record["corpus_hash"])
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    exact = trial.model_copy(update={"precision": "fp32"})  # whatever it was trained with
    model = build(exact, make_cell, len(corpus.vocab)).to(DTYPES[trial.precision])
    try:
        model.load_state_dict(load_file(path))
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise ValueError("they are not all finite")
    except (safetensors.SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise BadInput(f"{path}: not this run's weights: {one_line(error, 120)}") from None
    return model.eval(), list(corpus.vocab)


def _command(
    trial: Trial, origin: str, results: str, data_dir: Path | None, plugins: Path | None
) -> str:
    """Returns the command that trains the very same run and keeps its weights."""
    from bench.config import FIELDS
    from bench.plugins.spelling import spell

    defaults = FIELDS | {"emsize": trial.nhid, "min_lr": trial.lr / 4**6}
    words = ["python", "-m", "bench.train"]
    for name, value in trial.model_dump().items():
        if value != defaults[name]:
            words += [f"--{name.replace('_', '-')}", spell(value)]
    if _plugin_folder(origin):
        words += ["--plugins", str(plugins or _plugin_folder(origin))]
    if data_dir is not None:
        words += ["--data-dir", str(data_dir)]
    if results != "results":
        words += ["--results", results]
    return shlex.join([*words, "--rerun", "all"])


def _plugin_folder(origin: str) -> str:
    # A record's plugin_origin is "tree", a folder, or "FOLDER, tree" where both gave a plugin.
    return "" if origin == "tree" else origin.removesuffix(", tree")


def _sample(
    model: Any, vocab: list[str], words: int, temperature: float, seed: int, banned: set[str]
) -> list[str]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    barred = [vocab.index(word) for word in banned if word in vocab]
    start = vocab.index(EOS) if EOS in vocab else 0
    token = torch.tensor([[start]])
    state = model.initial_state(1)
    text = []
    with torch.no_grad():
        for _ in range(words):
            logits, state = model.logits(token, state)
            scores = logits[0, 0].double() / temperature
            scores[barred] = -torch.inf
            token = torch.multinomial(scores.softmax(0), 1, generator=generator).view(1, 1)
            text.append(vocab[int(token)])
    return text


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.generate")
