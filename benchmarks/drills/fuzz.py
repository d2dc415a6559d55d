"""`python -m benchmarks.drills.fuzz`: hostile files against everything that reads a file.

Each target is fed inputs that libFuzzer makes (through atheris) from good ones, steered by which
lines of Python they reach, in a process of its own; what an input is held to is in `fuzz_watch`.
atheris is not there for every Python, so it is an extra: `pip install "recurrent-bench[fuzz]"`.
Findings, each the shortest input of its cause beside what was said, are written to --findings and
end the drill with exit code 1. Prints a table; --name writes records/drill-fuzz-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TARGETS = {
    "yaml": "fuzz_texts",
    "spelling": "fuzz_texts",
    "corpus": "fuzz_texts",
    "cache": "fuzz_texts",
    "parquet": "fuzz_records",
    "care": "fuzz_records",
    "merge": "fuzz_records",
    "grid-json": "fuzz_records",
    "checkpoint": "fuzz_state",
    "options": "fuzz_options",
}
_HANGS_S = 120  # by the clock; libFuzzer ends the process, on a machine that others use as well
_STARTS = 20
_MEMORY = Path("/dev/shm")
"""A file system in memory: every input lays out a folder anew."""


def drill(target: str, inputs: int, seed: int, findings: Path) -> dict[str, Any]:
    """Feeds a target in processes of its own, another one after a crash; returns the figures."""
    known = {path.name for path in findings.iterdir()}
    began = time.monotonic()
    done, edges, first = 0, 0, 0
    for start in range(_STARTS):
        command = [sys.executable, "-m", "benchmarks.drills.fuzz", "--child", target]
        command += ["--inputs", str(inputs - done), "--seed", str(seed + start)]
        command += ["--findings", str(findings)]
        log = findings / f"{target}-{seed + start}.log"
        with log.open("wb") as said:
            run = subprocess.run(command, cwd=ROOT, stdout=said, stderr=said)
        text = log.read_text(errors="replace")
        covered = [int(n) for n in re.findall(r"cov: (\d+)", text)]
        counted = [int(n) for n in re.findall(r"^#(\d+)\s", text, re.MULTILINE)]
        if not covered:
            raise SystemExit(f"{target} did not start:\n{text[-2000:]}")
        first = first or covered[0]
        edges, done = max(edges, *covered), done + max(counted)
        if run.returncode == 0 or done >= inputs:
            break
    found = sorted({path.name for path in findings.iterdir()} - known)
    return {
        "target": target,
        "inputs": done,
        "edges": edges,
        "new_edges": edges - first,
        "seconds": time.monotonic() - began,
        "findings": sum(not name.endswith((".txt", ".log")) for name in found),
    }


def child(name: str, inputs: int, seed: int, findings: Path) -> None:
    """Feeds one target in this process, which libFuzzer ends."""
    atheris = importlib.import_module("atheris")
    sys.dont_write_bytecode = True
    logging.disable()
    with atheris.instrument_imports(include=["bench", "yaml", "numpy.lib"]):
        watching = importlib.import_module("benchmarks.drills.fuzz_watch")
        targets = importlib.import_module(f"benchmarks.drills.{TARGETS[name]}").TARGETS
    target = targets[name]
    os.fsync = lambda fd: None  # no power is cut here
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        watching.place(Path(folder) / "place") as watch,
    ):
        corpus, words = Path(folder) / "seeds", Path(folder) / "words"
        corpus.mkdir()
        for number, good in enumerate(target.seeds()):
            (corpus / f"{number:03}").write_bytes(good)
        lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in target.tokens)
        words.write_text("\n".join(lines) + "\n")

        def feed(data: bytes) -> None:
            said = watching.complaint(target, data, watch)
            if said and watching.keep(findings, name, data, said):
                print(f"{name}: {said.strip().splitlines()[-1]:.200}", file=sys.stderr)

        options = [f"-runs={inputs}", f"-seed={seed}", f"-dict={words}", "-len_control=0"]
        options += [f"-timeout={_HANGS_S}", f"-report_slow_units={_HANGS_S}"]
        options += ["-rss_limit_mb=4096", "-max_len=65536"]
        options += [f"-artifact_prefix={findings}/{name}-", str(corpus)]
        gc.freeze()  # or what was imported is looked through again and again
        atheris.Setup([sys.argv[0], *options], feed)
        atheris.Fuzz()


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| target | inputs | edges reached | of them new | seconds | findings |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        lines.append(
            f"| {row['target']} | {row['inputs']:,} | {row['edges']:,} | {row['new_edges']:,} | "
            f"{row['seconds']:.0f} | {row['findings']} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the targets one after the other; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drills.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="for each target")
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="200 inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other inputs")
    parser.add_argument("--findings", type=Path, help="folder; a new one of its own by default")
    parser.add_argument("--name", help="write records/drill-fuzz-NAME.json and .md")
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inputs < 1 or args.seed < 1:
        parser.error("--inputs and --seed: give a whole number above 0")
    if importlib.util.find_spec("atheris") is None:
        parser.error('atheris is not installed: pip install "atheris>=3", where it has this Python')
    if args.child:
        child(args.child, args.inputs, args.seed, args.findings)
        return 0
    findings = args.findings or Path(tempfile.mkdtemp(prefix="findings-"))
    findings = Path(os.path.realpath(findings))
    findings.mkdir(parents=True, exist_ok=True)
    rows = []
    for target in args.target:
        rows.append(drill(target, 200 if args.quick else args.inputs, args.seed, findings))
        print(_table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{_table(rows)}")
    for path in sorted(findings.glob("*.txt")):
        print(f"{path.with_suffix('.bin')}: {path.read_text().strip().splitlines()[-1]:.160}")
    if args.name:
        import torch

        from benchmarks.record import environment, write

        record = environment(torch.device("cpu")) | {"seed": args.seed, "rows": rows}
        write(f"drill-fuzz-{args.name}", "Hostile files", _table(rows), record)
    return 1 if any(row["findings"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
