"""`python -m benchmarks.corpora`: a folder corpus from text to arrays, and from the cache.

The text is made here: words of a Zipf law, the same at each call. Each round is a process of its
own with an empty cache. Cold: hash, check, cut into words, count, write, open; also by CPU time,
which others on the machine disturb less. Warm: open again, as each trial does. Peak memory: of the
process after that (`cold`), and of one that then reads every window of train, as a trial's epoch
does (`trial`, with torch). Medians. Prints a table and, with --name, writes
records/corpora-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from benchmarks.record import environment, write

# Not ru_maxrss where there is a choice: Linux counts what the parent held at the fork, too.
PEAK = """
import json, resource, sys, time
from pathlib import Path
def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
COLD = """
from bench.corpora import load, text_hash
spelling, here = sys.argv[1], Path.cwd()
started, worked = time.perf_counter(), time.process_time()
found = text_hash(spelling, here)
corpus = load(spelling, here, found)
cold, cpu = time.perf_counter() - started, time.process_time() - worked
warm = []
for _ in range(5):
    started = time.perf_counter()
    load(spelling, here, found)
    warm.append(time.perf_counter() - started)
print(json.dumps({"cold_s": cold, "cpu_s": cpu, "warm_s": sorted(warm)[2],
                  "peak": peak(), "hash": found,
                  "tokens": len(corpus.train), "words": len(corpus.vocab)}))
"""
TRIAL = """
from bench.corpora import load
from bench.corpora.windows import columns, windows
corpus = load(sys.argv[1], Path.cwd(), sys.argv[2])
total = sum(int(targets[0, 0]) for _, targets in windows(columns(corpus.train, 20), 350))
print(json.dumps({"peak": peak()}))
"""
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def vocabulary(size: int) -> list[str]:
    """Returns words of one to a few syllables, the frequent ones short."""
    words = []
    for number in range(size):
        word = ""
        while number >= 0:
            number, last = divmod(number, len(SYLLABLES))
            word = SYLLABLES[last] + word
            number -= 1
        words.append(word)
    return words


def make_text(file: BinaryIO, size: int, words: int, seed: int) -> None:
    """Writes about `size` bytes: lines of 25 words, frequencies by the law of Zipf."""
    draws = np.random.default_rng(seed)
    names = np.array(vocabulary(words), dtype=object)
    cumulative = np.cumsum(1 / (np.arange(words) + 2.7))
    cumulative /= cumulative[-1]
    while file.tell() < size:
        drawn = names[np.searchsorted(cumulative, draws.random(25 * 1_000))]
        lines = (" ".join(line) for line in drawn.reshape(-1, 25).tolist())
        file.write("".join(f" {line} \n" for line in lines).encode())


def measure(size: int, words: int, rounds: int, where: Path) -> dict[str, Any]:
    """Returns the medians of a corpus of `size` bytes of train and `words` possible words."""
    texts = where / "texts"
    texts.mkdir()
    for seed, (split, share) in enumerate({"train": 1.0, "valid": 0.01, "test": 0.01}.items()):
        with (texts / f"{split}.txt").open("wb") as file:
            make_text(file, int(size * share), words, seed)
    total = sum(file.stat().st_size for file in texts.iterdir())
    found = []
    for turn in range(rounds):
        cache = where / f"cache{turn}"
        found.append(_run(COLD, cache, f"folder:path={texts}"))
    peak = _run(TRIAL, cache, f"folder:path={texts}", found[0]["hash"])["peak"]
    cold = statistics.median(one["cold_s"] for one in found)
    return {
        "bytes": total,
        "words": found[0]["words"],
        "tokens": found[0]["tokens"],
        "cold_s": cold,
        "mb_per_s": total / 1e6 / cold,
        "mb_per_cpu_s": total / 1e6 / statistics.median(one["cpu_s"] for one in found),
        "warm_ms": 1000 * statistics.median(one["warm_s"] for one in found),
        "cold_peak_bytes": max(one["peak"] for one in found),
        "trial_peak_bytes": peak,
    }


def _run(code: str, cache: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *arguments],
        env=os.environ | {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.corpora", description=__doc__)
    parser.add_argument("--size-mb", type=float, default=200.0, help="of train")
    parser.add_argument("--words", nargs="+", type=int, default=[33_000, 500_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 MB")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    if options.size_mb <= 0 or options.rounds < 1 or min(options.words) < 1:
        parser.error("--size-mb, --rounds and --words must be above zero")
    size = 2e6 if options.quick else 1e6 * options.size_mb
    rows = []
    for words in options.words:
        with tempfile.TemporaryDirectory() as where:
            rows.append(measure(int(size), words, options.rounds, Path(where)))
        print(_line(rows[-1]), flush=True)
    title = f"A folder corpus, one process, median of {options.rounds}"
    names = ["text", "tokens", "words", "cold", "by CPU time", "warm", "peak, cold", "peak, trial"]
    table = "\n".join([f"| {' | '.join(names)} |", "| --- " * len(names) + "|", *map(_line, rows)])
    print(f"\n{title}\n\n{table}")
    if options.name:
        device = torch.device("cpu")
        write(f"corpora-{options.name}", title, table, {"rows": rows} | environment(device))
    return 0


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['bytes'] / 1e6:,.0f} MB | {row['tokens']:,} | {row['words']:,} | "
        f"{row['mb_per_s']:.0f} MB/s | {row['mb_per_cpu_s']:.0f} MB/s | {row['warm_ms']:.1f} ms | "
        f"{row['cold_peak_bytes'] / 1e6:,.0f} MB | {row['trial_peak_bytes'] / 1e6:,.0f} MB |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
