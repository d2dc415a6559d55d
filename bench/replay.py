"""A function of tensors, recorded as a CUDA graph and replayed: no cost of launching kernels.

Recording needs what a training step has anyway: fixed shapes, no look at a value from the host, and
randomness that comes from tensors (`bench.noise.StepNoise`). Without a stream, on a CPU, a replay
is a plain call on the same fixed buffers: no faster, but what goes through them can be tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bench.errors import one_line
from bench.noise import StepNoise

WARM_UP = 3
"""Plain calls of a shape before it is recorded: in them libraries choose kernels, take memory."""
MOST = 64
"""Shapes that are recorded; `variable_bptt` draws some fifty lengths."""

spoiled = False
"""Whether a recording has failed in this process: torch's memory is not itself after that, so
nothing more is recorded, and the process is not to be used for further trials."""


class Replay:
    """Calls `function`, tensors in and tensors out (nested in tuples), by replay where it can.

    Each shape of the arguments has a recording of its own, made at its call number WARM_UP + 1.
    What a replay returns is valid until the next one of its shape, and may be given to any. `noise`
    is what the function draws masks from, `held` returns the tensors that it keeps and changes:
    they must stay in their places. `failure` says why nothing could be recorded.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        stream: torch.cuda.Stream | None,
        noise: StepNoise | None = None,
        held: Callable[[], Sequence[Tensor]] = tuple,
    ) -> None:
        self.function, self.stream, self.noise, self.held = function, stream, noise, held
        self.failure: str | None = None
        self.replays = 0
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._pool: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Returns what `function` returns."""
        given, structure = pytree.tree_flatten(arguments)
        shapes = tuple(tensor.shape for tensor in given)
        recording = self._recordings.get(shapes)
        if recording is None:
            calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self.failure is None and calls > WARM_UP and len(self._recordings) < MOST:
                recording = self._record(given, structure)
        if recording is None:
            return self.function(*arguments)
        self._recordings[shapes] = recording
        self.replays += 1
        return recording.run(given)

    def _record(self, given: list[Tensor], structure: Any) -> _Recording | None:
        if spoiled:
            self.failure = "a recording has failed in this process"
            return None
        places = [tensor.data_ptr() for tensor in self.held()]
        if self.noise is not None:
            self.noise.begin_replay()
        recording = _Recording(self.function, given, structure)
        if self.stream is not None:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            try:
                recording.capture(self.stream, self._pool)
            except Exception as error:
                self._fail(error)
                return None
            if places != [tensor.data_ptr() for tensor in self.held()]:
                self._fail(ValueError("a buffer was replaced, not changed in place"))
                return None
        return recording

    def _fail(self, error: Exception) -> None:
        global spoiled
        spoiled = True
        self._recordings.clear()  # all else runs plainly, too: no keys are fed any more
        if self.noise is not None:
            self.noise.end_replay()
        cause: BaseException = error  # ending a broken capture raises over what broke it
        while cause.__context__ is not None:
            cause = cause.__context__
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause
        self.failure = one_line(f"{type(cause).__name__}: {cause}", 200)


class _Recording:
    """One shape's fixed places of what goes in and comes out, and the work between them."""

    def __init__(self, function: Callable[..., Any], given: list[Tensor], structure: Any) -> None:
        self.function, self.structure = function, structure
        self.inputs = [tensor.detach().clone() for tensor in given]
        self.outputs: list[Tensor] = []
        self.result: Any = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def capture(self, stream: torch.cuda.Stream, pool: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            self.outputs = self._work()
        self.graph = graph

    def run(self, given: list[Tensor]) -> Any:
        with torch.no_grad():
            torch._foreach_copy_(self.inputs, given)
        if self.graph is not None:
            self.graph.replay()
        else:
            outputs = self._work()
            self.outputs = self.outputs or [torch.empty_like(tensor) for tensor in outputs]
            torch._foreach_copy_(self.outputs, outputs)
        return pytree.tree_unflatten(self.outputs, self.result)

    def _work(self) -> list[Tensor]:
        arguments = pytree.tree_unflatten(self.inputs, self.structure)
        outputs, self.result = pytree.tree_flatten(self.function(*arguments))
        return [tensor.detach() for tensor in outputs]
