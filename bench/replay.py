"""A function of tensors, recorded once as a CUDA graph and replayed: no cost of launching kernels.

Recording needs what a training step has anyway: fixed shapes, no look at a value from the host, and
randomness that comes from tensors (`bench.noise.StepNoise`). On a CPU a replay is a plain call on
the same fixed buffers, so that what goes through them is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bench.errors import one_line
from bench.noise import StepNoise

WARM_UP = 3
"""Plain calls before the recording: libraries choose kernels and take their memory in them."""


class Replay:
    """Calls `function`, tensors in and tensors out (nested in tuples), by replay where it can.

    The first WARM_UP calls of the shapes given first are plain, the next is recorded, and it and
    all after it are replayed; calls with other shapes stay plain. What a replay returns is valid
    until the next one, and may be given to it. `noise` is what the function draws masks from.
    `failure` says why there is no recording, where it was tried in vain.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        stream: torch.cuda.Stream | None,
        noise: StepNoise | None = None,
    ) -> None:
        self.function, self.stream, self.noise = function, stream, noise
        self.failure: str | None = None
        self.shapes: list[torch.Size] | None = None
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.again: Callable[[], None] | None = None
        self.structure: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Returns what `function` returns."""
        given, structure = pytree.tree_flatten(arguments)
        shapes = [tensor.shape for tensor in given]
        if self.shapes is None:
            self.shapes = shapes
        if self.failure is not None or shapes != self.shapes or self.calls < WARM_UP:
            self.calls += shapes == self.shapes
            return self.function(*arguments)
        if self.again is None:
            self._record(given, structure)
        if self.again is None:
            return self.function(*arguments)
        with torch.no_grad():
            torch._foreach_copy_(self.inputs, given)
        self.again()
        return pytree.tree_unflatten(self.outputs, self.structure)

    def _record(self, given: list[Tensor], structure: Any) -> None:
        self.inputs = [tensor.detach().clone() for tensor in given]
        if self.noise is not None:
            self.noise.begin_replay()

        def work() -> list[Tensor]:
            arguments = pytree.tree_unflatten(self.inputs, structure)
            outputs, self.structure = pytree.tree_flatten(self.function(*arguments))
            return [tensor.detach() for tensor in outputs]

        if self.stream is None:
            self.again = lambda: self._keep(work())
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.outputs = work()
        except Exception as error:
            self.failure = one_line(f"{type(error).__name__}: {error}", 200)
            if self.noise is not None:
                self.noise.end_replay()
            return
        self.again = graph.replay

    def _keep(self, outputs: list[Tensor]) -> None:
        """Puts the results where those of a recording would be: in the same place each time."""
        if not self.outputs:
            self.outputs = [torch.empty_like(tensor) for tensor in outputs]
        torch._foreach_copy_(self.outputs, outputs)
