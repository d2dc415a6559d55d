"""The peer of our speed: a language model as most people write it, on torch's stacked layers.

Our own code in the style of pytorch/examples' word_language_model: `nn.LSTM(num_layers=2)` (or GRU,
or tanh RNN) with dropout inside, tied decoder, cross entropy, clip, and a plain step of SGD.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


class Peer(nn.Module):
    """One model and its training step."""

    def __init__(self, kind: str, vocab_size: int, nhid: int, dropout: float, lr: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(vocab_size, nhid)
        self.rnn = KINDS[kind](nhid, nhid, num_layers=2, dropout=dropout)
        self.decoder = nn.Linear(nhid, vocab_size)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        self.lr = lr

    def forward(self, tokens: Tensor, hidden: object) -> tuple[Tensor, object]:
        """tokens [T,B] -> logits [T*B,V], hidden."""
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        return self.decoder(self.drop(output)).flatten(0, 1), hidden

    def step(self, tokens: Tensor, targets: Tensor, hidden: object) -> object:
        """Trains on one window; returns the hidden state for the next."""
        if isinstance(hidden, tuple):
            hidden = tuple(h.detach() for h in hidden)
        elif isinstance(hidden, Tensor):
            hidden = hidden.detach()
        self.zero_grad()
        logits, hidden = self(tokens, hidden)
        loss = F.cross_entropy(logits, targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.25)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-self.lr)
        return hidden
