"""`python -m bench.generate RUN_ID`: text from a run's best weights."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.config import Trial

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def generate(
    run_id: str,
    words: Annotated[int, typer.Option(help="How many words.")] = 1000,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 wilder.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    eos: Annotated[bool, typer.Option("--eos", help="Let lines end.")] = False,
    unk: Annotated[bool, typer.Option("--unk", help="Let <unk> occur.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the corpora.")] = None,
    plugins: Annotated[Path | None, typer.Option(help="A further plugin folder.")] = None,
) -> None:
    """Sample text from a run's best weights; <eos> and <unk> are left out unless asked for."""
    from bench.errors import BadInput

    if not 1 <= words <= 10_000_000:
        raise BadInput(f"--words {words}: must be from 1 to 10,000,000")
    if not 0.01 <= temperature <= 100:
        raise BadInput(f"--temperature {temperature:g}: must be from 0.01 to 100")
    model, vocab, length = _load(run_id, results, data_dir, plugins)
    banned = [word for word, wanted in (("<eos>", eos), ("<unk>", unk)) if not wanted]
    text = _sample(model, vocab, words, temperature, seed, banned)
    for line in " ".join(text).split("<eos>"):
        print(textwrap.fill(line.strip(), length) if line.strip() else "")


def _load(
    run_id: str, results: Path, data_dir: Path | None, plugins: Path | None
) -> tuple[Any, list[str], int]:
    """Returns the run's model with its best weights, its vocabulary, and a line length."""
    from bench.config import FIELDS, Trial, select, sources_of
    from bench.corpora import default_data_dir, load
    from bench.errors import BadInput, nearest, one_line
    from bench.plugins import find, load_class
    from bench.store import load_runs

    runs, _ = load_runs(results)
    matching = runs[runs.run_id.str.startswith(run_id)] if run_id else runs[:0]
    if len(matching) != 1:
        what = "no run" if len(matching) == 0 else f"{len(matching)} runs"
        raise BadInput(
            f"{results}: {what} with the id {one_line(run_id, 40)!r}. {nearest(run_id, runs.run_id)}"
        )
    record = matching.iloc[0].to_dict()
    trial = Trial(**{name: record[name] for name in FIELDS})
    path = results / "weights" / f"{record['run_id']}.safetensors"
    if not path.is_file():
        raise BadInput(
            f"{path}: no weights were kept ({record['status']}); this makes them: "
            f"{_command(trial, results)}"
        )
    registry = find(plugins)
    sources = sources_of(trial, registry)
    recorded = record["cell_source"]
    cell, _ = select(trial, registry)
    if sources[f"cell:{cell.plugin.name}"] != recorded:
        raise BadInput(
            f"{cell.plugin.path}: has changed since run {record['run_id']}; its weights belong to "
            f"source {recorded}"
        )
    import functools

    import safetensors
    from safetensors.torch import load_file

    from bench.model import build

    corpus = load(trial.corpus, data_dir or default_data_dir(), record["corpus_hash"])
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    model = build(trial, make_cell, len(corpus.vocab))
    try:
        weights = load_file(path)
        model.to(next(iter(weights.values())).dtype)
        model.load_state_dict(weights)
    except (safetensors.SafetensorError, RuntimeError, OSError) as error:
        raise BadInput(f"{path}: not this run's weights: {one_line(error, 120)}") from None
    return model.eval(), list(corpus.vocab), 100


def _command(trial: Trial, results: Path) -> str:
    from bench.config import FIELDS
    from bench.plugins.spelling import spell

    defaults = FIELDS | {"emsize": trial.nhid, "min_lr": trial.lr / 4**6}
    words = ["python", "-m", "bench.train"]
    for name, value in trial.model_dump().items():
        if value != defaults[name]:
            words += [f"--{name.replace('_', '-')}", spell(value)]
    if str(results) != "results":
        words += ["--results", str(results)]
    return shlex.join([*words, "--rerun", "all"])


def _sample(
    model: Any, vocab: list[str], words: int, temperature: float, seed: int, banned: list[str]
) -> list[str]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    barred = [vocab.index(word) for word in banned if word in vocab]
    start = vocab.index("<eos>") if "<eos>" in vocab else 0
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
