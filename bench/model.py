"""The language model: ids -> embedding -> stack of cells -> decoder -> nll of the targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Activations, State
from bench.config import Trial
from bench.decoder import Tie, decode_nll
from bench.noise import Draws, stream
from bench.precision import rounding
from bench.products import ROUNDED, linear

StackState = tuple[State, ...]
"""One State per layer."""


class LanguageModel(nn.Module):
    """A stack of one-layer cells between an embedding and a (by default tied) decoder.

    Layers 1..n-1 have `nhid` units; the last has `emsize` when tied, else `nhid`. Each part is
    built after torch is seeded with (seed, "init", site), so its initial weights depend on no other
    part. The stack owns the dropout between layers: `dropouti` on the embedded input, `dropouth`
    between layers, `dropout` on the last output. It draws a fresh mask [T,B,*] at every step or,
    when `locked`, one [1,B,*] for all steps of the window (Gal and Ghahramani 2016, arXiv
    1512.05287; Merity et al. 2017, arXiv 1708.02182).

    `dropoute` drops whole words from the input, of all V one mask [V,1] per window as in
    awd-lstm-lm: a dropped word is zero wherever it stands in the window, in all columns (in Gal's
    code each column has a mask of its own). The decoder, tied or not, keeps every word.
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
        dropoute: float = 0.0,
        locked: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.dropout, self.dropouti, self.dropouth = dropout, dropouti, dropouth
        self.dropoute, self.locked = dropoute, locked
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
        self.tie = Tie() if tied else None
        self.decoder_weight = (
            None if tied else nn.Parameter(torch.empty(vocab_size, last).uniform_(-0.1, 0.1))
        )

    @property
    def decoder(self) -> Tensor:
        """The decoder's weight [V,E], which is the embedding when tied."""
        return self.embedding if self.decoder_weight is None else self.decoder_weight

    @property
    def num_params(self) -> int:
        """Trainable parameters; tied ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def initial_state(self, batch_size: int) -> StackState:
        """Returns the state before the first window."""
        return tuple(cell.initial_state(batch_size) for cell in self.cells)  # type: ignore[operator]

    def forward(
        self, tokens: Tensor, targets: Tensor, state: StackState, noise: Draws | None
    ) -> tuple[Tensor, StackState, Activations]:
        """tokens [T,B], targets [T,B] (-1: nothing to predict) -> nll [T,B] in nats, state, acts.

        `noise` None means no dropout of any kind.
        """
        hidden, state, acts = self._run(tokens, state, noise)
        return decode_nll(hidden, self.decoder, self.decoder_bias, targets, self.tie), state, acts

    def predict(
        self, tokens: Tensor, state: StackState, noise: Draws | None
    ) -> tuple[Tensor, StackState, Activations]:
        """tokens [T,B] -> logits [T,B,V], state, acts: `forward` for an objective of its own."""
        hidden, state, acts = self._run(tokens, state, noise)
        return linear(hidden, self.decoder, self.decoder_bias), state, acts

    def logits(self, tokens: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """tokens [T,B] -> logits [T,B,V], state. For text generation; training reads the nll."""
        logits, state, _ = self.predict(tokens, state, None)
        return logits, state

    def _embed(self, tokens: Tensor, noise: Draws | None) -> Tensor:
        if self.tie is None:
            embedded = F.embedding(tokens, self.embedding)
        else:
            embedded = self.tie.embed(tokens, self.embedding)
        if noise is not None and self.dropoute > 0:
            # The words that stand here, not a product over all V of them.
            words = noise.at("input").mask("words", (len(self.embedding), 1), self.dropoute)
            embedded = embedded * words[tokens]
        return self._drop(embedded, noise, "input", self.dropouti)

    def _drop(self, x: Tensor, noise: Draws | None, site: str, p: float) -> Tensor:
        if noise is None or p == 0:
            return x
        shape = (1 if self.locked else x.shape[0], *x.shape[1:])
        return x * noise.at(site).mask("between layers", shape, p)

    def _run(
        self, tokens: Tensor, state: StackState, noise: Draws | None
    ) -> tuple[Tensor, StackState, Activations]:
        embedded = self._embed(tokens, noise)
        hidden = embedded
        raws: list[Tensor] = []
        droppeds: list[Tensor] = []
        memories: list[Tensor | None] = []
        states: list[State] = []
        for layer, (cell, size) in enumerate(zip(self.cells, self.sizes, strict=True)):
            site = f"layer{layer}"
            with rounding(self.precision, hidden.device):
                out = cell(hidden, state[layer], noise.at(site) if noise else None)
            raw, new_state, memory = _unpack(out, cell, (*tokens.shape, size), hidden.dtype)
            is_last = layer == len(self.cells) - 1
            hidden = self._drop(
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
        dropoute=trial.dropoute,
        locked=trial.locked,
        precision=trial.precision,
    )


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [T,B,V], targets [T,B] -> nll [T,B] in nats; 0 where the target is -1."""
    flat = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1
    )
    return flat.view_as(targets)


def detach(state: StackState) -> StackState:
    """Returns the state cut off from the window that made it (truncated backpropagation)."""
    return tuple(tuple(t.detach() for t in layer) for layer in state)


def _unpack(
    out: object, cell: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
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
    state = tuple(_widened(t, dtype) for t in state)
    return _widened(raw, dtype), state, None if memory is None else _widened(memory, dtype)


def _widened(x: Tensor, dtype: torch.dtype) -> Tensor:
    """What came out of a rounded product may be of the narrow type."""
    return x.to(dtype) if x.dtype in ROUNDED.values() else x
