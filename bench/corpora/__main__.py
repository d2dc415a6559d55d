"""`python -m bench.corpora`: which corpora there are, their download, their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="corpora",
    help="Lists corpora, downloads them, shows their figures.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the texts; else $BENCH_DATA, else the user cache."),
]
Name = Annotated[str, typer.Argument(help="A corpus: synthetic, ptb, folder:path=DIR, …")]


@app.callback(invoke_without_command=True)
def corpora(context: typer.Context) -> None:
    """Lists corpora, downloads them, shows their figures."""
    if context.invoked_subcommand is None:
        list_corpora(None)


@app.command("list")
def list_corpora(data_dir: DataDir = None) -> None:
    """Lists the corpora and whether their texts are here."""
    from bench.corpora.download import local_path
    from bench.corpora.sources import REMOTE, SPLITS

    where = _folder(data_dir)
    rows = [("synthetic", "made on the spot", "a source of known entropy (default)")]
    for name, remote in REMOTE.items():
        here = all(local_path(name, split, where) for split in SPLITS)
        state = "here" if here else "not here yet"
        rows.append((name, state, f"{remote.title} ({remote.licence})"))
    rows.append(("folder:path=DIR", "yours", "train, valid and test text in a folder"))
    for row in rows:
        typer.echo("{:<18}{:<18}{}".format(*row))
    typer.echo(f"data folder: {where}")


@app.command("fetch")
def fetch_corpus(name: Name, data_dir: DataDir = None) -> None:
    """Downloads a corpus if it is not here, and checks it."""
    from bench.corpora import canonical, text_hash

    where = _folder(data_dir)
    found = text_hash(name, where, say=lambda line: typer.echo(line, err=True))
    typer.echo(f"{canonical(name)} is complete, hash {found}")


@app.command("show")
def show_corpus(name: Name, data_dir: DataDir = None) -> None:
    """Shows tokens, vocabulary, words that train lacks, unigram perplexity and hash of a corpus."""
    import math

    from bench.corpora import load, text_hash
    from bench.synthetic import entropy_rate

    where = _folder(data_dir)
    found = text_hash(name, where, say=lambda line: typer.echo(line, err=True))
    corpus = load(name, where, found)
    typer.echo(f"corpus      {corpus.spelling}")
    typer.echo(f"hash        {corpus.hash}")
    typer.echo(f"vocabulary  {len(corpus.vocab):,}")
    header = f"{'':<8}{'tokens':>13}{'oov types':>13}{'oov tokens':>13}{'unigram ppl':>14}"
    typer.echo(header + (f"{'source ppl':>14}" if corpus.source_nll else ""))
    typer.echo(f"{'train':<8}{len(corpus.train):>13,}")
    for split, ids in (("valid", corpus.valid), ("test", corpus.test)):
        types, tokens = corpus.oov[split]
        unigram = math.exp(corpus.unigram_nll[split])
        line = f"{split:<8}{len(ids):>13,}{types:>13,}{tokens:>13,}{unigram:>14.2f}"
        if corpus.source_nll:  # over the tokens that a model predicts: all but the first
            line += f"{math.exp(corpus.source_nll[split][1:].mean()):>14.2f}"
        typer.echo(line)
    if corpus.source_nll:
        rate = entropy_rate()
        typer.echo(
            f"entropy rate of the source: {rate:.6f} nats per token, ppl {math.exp(rate):.4f}"
        )


def _folder(data_dir: Path | None) -> Path:
    from bench.corpora import default_data_dir
    from bench.corpora.texts import expanded

    return expanded(data_dir, "--data-dir") if data_dir else default_data_dir()


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.corpora")
