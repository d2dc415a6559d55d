"""The language model: ids -> embedding -> stack of cells -> decoder -> nll of the targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Activations, State
from bench.config import Trial
from bench.noise import WindowNoise, stream

StackState = tuple[State, ...]
"""One State per layer."""


class LanguageModel(nn.Module):
    """A stack of one-layer cells between an embedding and a (by default tied) decoder.

    Layers 1..n-1 have `nhid` units; the last has `emsize` when tied, else `nhid`. The stack owns
    the dropout between layers, a fresh mask at every step: `dropouti` on the embedded input,
    `dropouth` between layers, `dropout` on the last output. Each part is built after torch is
    seeded with (seed, "init", site), so its initial weights depend on no other part.
    """

    def __init__(
        self,
        make_cell: Callable[[int, int], nn.Module],
        *,
        vocab_size: int,
        emsize: int,
        nhid: int,
        nlayers: int,
        tied: bool,
        dropout: float,
        dropouti: float,
        dropouth: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.dropout, self.dropouti, self.dropouth = dropout, dropouti, dropouth
        torch.manual_seed(stream(seed, "init", "input"))
        self.embedding = nn.Parameter(torch.empty(vocab_size, emsize).uniform_(-0.1, 0.1))
        last = emsize if tied else nhid
        self.sizes = [*[nhid] * (nlayers - 1), last]
        cells = []
        for layer, (size_in, size_out) in enumerate(
            zip([emsize, *self.sizes[:-1]], self.sizes, strict=True)
        ):
            torch.manual_seed(stream(seed, "init", f"layer{layer}"))
            cells.append(make_cell(size_in, size_out))
        self.cells = nn.ModuleList(cells)
        torch.manual_seed(stream(seed, "init", "output"))
        self.decoder_bias = nn.Parameter(torch.zeros(vocab_size))
        self.decoder_weight = (
            None if tied else nn.Parameter(torch.empty(vocab_size, last).uniform_(-0.1, 0.1))
        )

    @property
    def num_params(self) -> int:
        """Trainable parameters; tied ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def initial_state(self, batch_size: int) -> StackState:
        """Returns the state before the first window."""
        return tuple(cell.initial_state(batch_size) for cell in self.cells)  # type: ignore[operator]

    def forward(
        self, tokens: Tensor, targets: Tensor, state: StackState, noise: WindowNoise | None
    ) -> tuple[Tensor, StackState, Activations]:
        """tokens [T,B], targets [T,B] (-1: nothing to predict) -> nll [T,B] in nats, state, acts.

        `noise` None means no dropout of any kind.
        """
        hidden, state, acts = self._run(tokens, state, noise)
        logits = self._decode(hidden)
        nll = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1
        )
        return nll.view_as(targets), state, acts

    def logits(self, tokens: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """tokens [T,B] -> logits [T,B,V], state. For text generation; training reads the nll."""
        hidden, state, _ = self._run(tokens, state, None)
        return self._decode(hidden), state

    def _decode(self, hidden: Tensor) -> Tensor:
        weight = self.embedding if self.decoder_weight is None else self.decoder_weight
        return F.linear(hidden, weight, self.decoder_bias)

    def _run(
        self, tokens: Tensor, state: StackState, noise: WindowNoise | None
    ) -> tuple[Tensor, StackState, Activations]:
        embedded = _drop(F.embedding(tokens, self.embedding), noise, "input", self.dropouti)
        hidden = embedded
        raws: list[Tensor] = []
        droppeds: list[Tensor] = []
        memories: list[Tensor | None] = []
        states: list[State] = []
        for layer, (cell, size) in enumerate(zip(self.cells, self.sizes, strict=True)):
            site = f"layer{layer}"
            out = cell(hidden, state[layer], noise.at(site) if noise else None)
            raw, new_state, memory = _unpack(out, cell, (*tokens.shape, size))
            is_last = layer == len(self.cells) - 1
            hidden = _drop(
                raw,
                noise,
                "output" if is_last else site,
                self.dropout if is_last else self.dropouth,
            )
            raws.append(raw)
            droppeds.append(hidden)
            memories.append(memory)
            states.append(new_state)
        acts = Activations(embedded, tuple(raws), tuple(droppeds), tuple(memories))
        return hidden, tuple(states), acts


def build(
    trial: Trial, make_cell: Callable[[int, int], nn.Module], vocab_size: int
) -> LanguageModel:
    """Returns a trial's model with its initial weights, in float32 on the default device."""
    assert trial.emsize is not None  # resolved by Trial
    return LanguageModel(
        make_cell,
        vocab_size=vocab_size,
        emsize=trial.emsize,
        nhid=trial.nhid,
        nlayers=trial.nlayers,
        tied=trial.tied,
        dropout=trial.dropout,
        dropouti=trial.dropouti,
        dropouth=trial.dropouth,
        seed=trial.seed,
    )


def detach(state: StackState) -> StackState:
    """Returns the state cut off from the window that made it (truncated backpropagation)."""
    return tuple(tuple(t.detach() for t in layer) for layer in state)


def _drop(x: Tensor, noise: WindowNoise | None, site: str, p: float) -> Tensor:
    if noise is None or p == 0:
        return x
    return x * noise.at(site).mask("between layers", tuple(x.shape), p)


def _unpack(
    out: object, cell: nn.Module, shape: tuple[int, ...]
) -> tuple[Tensor, State, Tensor | None]:
    # A clear line here, or a puzzling one from deep inside torch.
    memory_promised = bool(getattr(cell, "memory", False))
    wanted = 3 if memory_promised else 2
    if not isinstance(out, tuple) or len(out) != wanted:
        got = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
        raise ValueError(f"the cell's forward must return a tuple of {wanted}, not {got}")
    raw, state = out[0], out[1]
    memory = out[2] if memory_promised else None
    for name, tensor in (("raw", raw), ("memory", memory)):
        if name == "memory" and not memory_promised:
            continue
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            got = str(list(tensor.shape)) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"the cell returned {name} {got}; [T,B,H] is {list(shape)} here")
    if not isinstance(state, tuple) or not all(isinstance(t, Tensor) for t in state):
        raise ValueError("the cell returned a state that is no tuple of tensors")
    return raw, state, memory
