"""What only a GPU can show. `make gpu-test`; elsewhere these are skipped with that reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import store
from bench.config import Trial, make_trial
from bench.corpora import default_data_dir
from bench.engine import Engine
from bench.loop import Trainer
from bench.noise import WindowNoise
from bench.plugins import find, load_class
from bench.worker import run_trials
from benchmarks.drills import resume
from tests.grids import assert_same, bench, grid_file
from tests.jobs import job_of
from tests.trainers import make_trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
SMALL: dict[str, Any] = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 16,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 2,
    "regularizer": "ar+tar",
}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def trainer(device: torch.device = CUDA, **changes: Any) -> Trainer:
    return make_trainer(make_trial(SMALL | changes, find(), "test"), device, default_data_dir())


def outcome(one: Trainer) -> tuple[list[float], float]:
    return [e["train_nll"] for e in one.epochs()], one.result()["test_nll"]


@pytest.mark.parametrize("name", sorted(find()["cell"]))
def test_a_cell_on_cuda_equals_itself_on_the_cpu_forward_and_backward(name: str) -> None:
    torch.manual_seed(1)
    cell = load_class(find()["cell"][name])(24, 32).double()
    found = []
    for device in ("cpu", "cuda"):
        cell = cell.to(device)
        x = torch.randn(9, 4, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x = x.to(device).requires_grad_()
        noise = WindowNoise(7, "train", 3, torch.device(device), torch.float64).at("layer0")
        raw = cell(x, cell.initial_state(4), noise)[0]
        grads = torch.autograd.grad(raw.square().sum(), [x, *cell.parameters()])
        found.append([t.detach().cpu() for t in (raw, *grads)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_cuda_equals_the_cpu_in_float64_dropout_included(cell: str) -> None:
    one, other = (outcome(trainer(d, cell=cell, precision="fp64"))[1] for d in (CPU, CUDA))
    assert one == pytest.approx(other, rel=1e-7)


@pytest.mark.parametrize("cell", sorted(find()["cell"]))
def test_cuda_gives_the_same_numbers_twice(cell: str) -> None:
    assert outcome(trainer(cell=cell)) == outcome(trainer(cell=cell))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "tf32"])
@pytest.mark.parametrize("cell", sorted(find()["cell"]))
def test_a_recorded_step_is_the_plain_one(cell: str, precision: str) -> None:
    recorded, plain = (trainer(cell=cell, precision=precision) for _ in range(2))
    plain.engine = Engine(plain.trial, plain.model, plain.regularizers, CUDA, replay=False)
    assert outcome(recorded) == outcome(plain)
    assert recorded.engine.path == "captured"
    assert plain.engine.path == "eager"


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "lstm_zoneout", "rhn"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_a_narrow_precision_learns_what_fp32_learns(cell: str, precision: str) -> None:
    """130 units: padded to 256 where fp16 pads."""
    changes: dict[str, Any] = {"cell": cell, "nhid": 130, "lr": 2.0, "epochs": 1}
    narrow, true = (outcome(trainer(precision=p, **changes))[0] for p in (precision, "fp32"))
    assert narrow != true
    assert narrow == pytest.approx(true, rel=5e-3)


def test_packed_trials_have_the_numbers_they_have_alone() -> None:
    cells = ("lstm", "gru", "rnn_tanh", "lstm_zoneout", "qrnn")
    trials = [Trial(**SMALL, cell=cell, rep=rep) for cell in cells for rep in range(2)]
    jobs = [dataclasses.replace(job_of(trial), device="cuda") for trial in trials]
    found: list[dict[str, Any]] = []
    for pack in (1, 4):
        records: list[dict[str, Any]] = []
        run_trials(jobs, records.append, pack)
        found.append({m["run_id"]: m["record"] for m in records if "record" in m})
    for run_id, alone in found[0].items():
        for name in ("status", "valid_nll", "test_nll", "kernel_path"):
            assert alone[name] == found[1][run_id][name]
    assert {record["packed"] for record in found[1].values()} == {4}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "lstm_batchnorm", "qrnn"])
def test_a_trial_goes_on_to_the_bit(cell: str, precision: str) -> None:
    """The drill is `python -m benchmarks.drills.resume`, on a CPU."""
    trial = {"cell": cell, "regularizer": resume.BOTH, "precision": precision}
    ((_, count, wrong),) = resume.by_dropping([trial], 5, seed=1, device="cuda")
    assert (count, wrong) == (5, 0)


def test_masks_are_those_of_the_cpu() -> None:
    one, other = (
        WindowNoise(1, "train", 0, device, torch.float32).at("layer0").mask("m", (999, 1001), 0.3)
        for device in (CPU, CUDA)
    )
    assert torch.equal(one, other.cpu())


def test_a_grid_on_the_gpu_is_recorded_as_such(tmp_path: Path) -> None:
    grid = grid_file(tmp_path, '{cell: [lstm, gru], regularizer: [none, "ar+tar"]}')
    for jobs in (0, 1):
        argv = ("--backend", "local", "--jobs", jobs, "--device", "cuda", "--no-report")
        assert bench("grid", grid, "--results", tmp_path / str(jobs), *argv) == 0
    assert_same(tmp_path / "0", tmp_path / "1")
    runs, _ = store.load_runs(tmp_path / "0")
    assert runs.cuda.notna().all() and runs.device.str.contains("NVIDIA").all()
