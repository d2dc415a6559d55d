"""What only a GPU can show. `make gpu-test`; elsewhere these are skipped with that reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import store
from bench.config import make_trial
from bench.corpora import default_data_dir
from bench.noise import WindowNoise
from bench.plugins import find, load_class
from tests.grids import assert_same, bench, grid_file
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
DRY = {"dropout": 0.0, "dropouti": 0.0, "dropouth": 0.0}


class OnCuda:
    """The masks of a CPU, on the GPU: the devices' own generators differ."""

    noise = WindowNoise(7, "train", 3, torch.device("cpu"), torch.float64).at("layer0")

    def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        return self.noise.mask(name, shape, p).cuda()


@pytest.mark.parametrize("name", sorted(find()["cell"]))
def test_a_cell_on_cuda_equals_itself_on_the_cpu_forward_and_backward(name: str) -> None:
    torch.manual_seed(1)
    cell = load_class(find()["cell"][name])(24, 32).double()
    found = []
    for device in ("cpu", "cuda"):
        cell = cell.to(device)
        x = torch.randn(9, 4, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x = x.to(device).requires_grad_()
        noise: Any = OnCuda() if device == "cuda" else OnCuda.noise
        raw = cell(x, cell.initial_state(4), noise)[0]
        grads = torch.autograd.grad(raw.square().sum(), [x, *cell.parameters()])
        found.append([t.detach().cpu() for t in (raw, *grads)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_without_dropout_cuda_equals_the_cpu_in_float64(cell: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        trial = make_trial(SMALL | DRY | {"cell": cell, "precision": "fp64"}, find(), "test")
        trainer = make_trainer(trial, torch.device(device), default_data_dir())
        list(trainer.epochs())
        results.append(trainer.result()["test_nll"])
    assert results[0] == pytest.approx(results[1], rel=1e-7)


@pytest.mark.parametrize("cell", sorted(find()["cell"]))
def test_cuda_gives_the_same_numbers_twice(cell: str) -> None:
    results = []
    for _ in range(2):
        trial = make_trial(SMALL | {"cell": cell}, find(), "test")
        trainer = make_trainer(trial, torch.device("cuda"), default_data_dir())
        losses = [e["train_nll"] for e in trainer.epochs()]
        results.append((losses, trainer.result()["test_nll"]))
    assert results[0] == results[1]


def test_masks_on_cuda_are_pure_and_have_the_right_mean() -> None:
    noise = WindowNoise(1, "train", 0, torch.device("cuda"), torch.float32).at("layer0")
    one = noise.mask("m", (1000, 1000), 0.3)
    torch.rand(10, device="cuda")
    assert torch.equal(one, noise.mask("m", (1000, 1000), 0.3))
    assert float(one.mean()) == pytest.approx(1.0, abs=0.01)


def test_a_grid_on_the_gpu_is_recorded_as_such(tmp_path: Path) -> None:
    grid = grid_file(tmp_path, '{cell: [lstm, gru], regularizer: [none, "ar+tar"]}')
    for jobs in (0, 1):
        argv = ("--backend", "local", "--jobs", jobs, "--device", "cuda", "--no-report")
        assert bench("grid", grid, "--results", tmp_path / str(jobs), *argv) == 0
    assert_same(tmp_path / "0", tmp_path / "1")
    runs, _ = store.load_runs(tmp_path / "0")
    assert runs.cuda.notna().all() and runs.device.str.contains("NVIDIA").all()
