"""docs/slurm.sbatch, run to its end: two nodes that both are this machine.

SLURM's own commands are replaced by scripts of their names that do their work here. All else is
real: the heads, the workers, the token, the signals.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import store
from tests.grids import ROOT, grid_file, rogue
from tests.test_resume import wait_until

SCRIPT = ROOT / "docs" / "slurm.sbatch"

SRUN = """#!/bin/bash
# One node: runs the command here. Each step of SLURM is told its share.
echo "srun $*" >> "$STUB_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$STUB_LOG"
if [[ $1 == show ]]; then printf 'node-1\\nnode-2\\n'; fi
"""


def test_the_script_is_bash_and_its_directives_are_known() -> None:
    text = SCRIPT.read_text()
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", text, re.MULTILINE))
    assert directives["signal"] == "B:TERM@120" and "requeue" in directives
    assert directives["open-mode"] == "append" and directives["ntasks-per-node"] == "1"
    # SLURM stops reading directives at the first command.
    assert text.rfind("#SBATCH") < text.index("\nset -euo pipefail")
    code = [line for line in text.splitlines() if not line.startswith("#") and "# by" not in line]
    assert not any("ray stop" in line for line in code)


class Slurm:
    """A job of two nodes that both are this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "stub.log"
        self.job = f"t{os.getpid()}"
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def sbatch(self, *words: object, nodes: int = 2) -> subprocess.Popen[str]:
        here = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "STUB_LOG": str(self.log),
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_ID": self.job,
            "SLURM_NNODES": str(nodes),
            "SLURM_JOB_NODELIST": "node-[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
        }
        self.log.write_text("")
        return subprocess.Popen(
            ["bash", str(SCRIPT), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | here,
        )

    def processes(self) -> list[str]:
        """Command lines of what this job has left running."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("SLURM_JOB_ID") == self.job
                if ours and process.status() != "zombie":
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
def test_a_job_that_is_stopped_is_requeued_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM to the script: the grid stops, the job asks to be queued again, nothing stays. Then
    the same command finishes the grid, on one node this time."""
    slurm = Slurm(tmp_path)
    rogue(tmp_path / "p", "slow", call="import time; time.sleep(0.01)")
    grid = grid_file(tmp_path, "{cell: [slow], regularizer: [none, ar, tar]}")
    words = (grid, "--plugins", tmp_path / "p", "--device", "cpu", "--no-report")
    job = slurm.sbatch(*words)
    records = tmp_path / "results" / "runs"
    token_file = tmp_path / f".ray-token-{slurm.job}"
    wait_until(lambda: any(records.glob("*.parquet")) or job.poll() is not None, 240)
    assert job.poll() is None, job.communicate()[0]
    assert token_file.stat().st_mode & 0o777 == 0o600 and len(token_file.read_text()) == 64
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=240)
    said = slurm.log.read_text()
    assert job.returncode not in (0, 2), out
    assert said.count(f"scontrol requeue {slurm.job}") == 1, said
    assert said.count("srun ") == 2  # Ray on the other node, and its folder away
    wait_until(lambda: slurm.processes() == [], 60)
    assert not token_file.exists() and not Path(f"/tmp/bench-{slurm.job}").exists()

    first = len(list(records.glob("*.parquet")))
    job = slurm.sbatch(*words, nodes=1)
    out, _ = job.communicate(timeout=240)
    assert job.returncode == 0, out
    assert slurm.log.read_text() == ""  # neither another node nor another turn
    runs, problems = store.load_runs(tmp_path / "results")
    assert problems == [] and list(runs.status) == ["ok"] * 3 and 1 <= first < 3
    assert f"{first} recorded" in out
    wait_until(lambda: slurm.processes() == [], 60)


@pytest.mark.ray
@pytest.mark.xdist_group("cluster")
def test_bad_input_is_not_requeued(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    job = slurm.sbatch("no-such-grid", nodes=1)
    out, _ = job.communicate(timeout=240)
    assert job.returncode == 2 and "bench: " in out
    assert "requeue" not in slurm.log.read_text()
    wait_until(lambda: slurm.processes() == [], 60)
