"""What a measurement is written down with: command, date, device, versions."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench import provenance

RECORDS = Path(__file__).parent / "records"


def environment(device: torch.device) -> dict[str, Any]:
    """Returns what a figure means nothing without; no host name."""
    of_process = provenance.of_process(device.type)
    return {
        "command": f"python -m {_module()} {shlex.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        **{key: of_process[key] for key in ("device", "torch", "cuda", "python")},
        **provenance.git(),
    }


def _module() -> str:
    parts = Path(sys.argv[0]).resolve().with_suffix("").parts
    return ".".join(["benchmarks", *parts[len(RECORDS.resolve().parent.parts) :]])


def write(name: str, title: str, table: str, record: dict[str, Any]) -> None:
    """Writes records/NAME.json and records/NAME.md."""
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.json").write_text(json.dumps({"title": title, **record}, indent=1) + "\n")
    head = f"`{record['command']}`, {record['date']}, {record['device']}, torch {record['torch']}"
    (RECORDS / f"{name}.md").write_text(f"# {title}\n\n{head}\n\n{table}\n")
    print(f"\nwritten: {RECORDS.name}/{name}.json and .md")
