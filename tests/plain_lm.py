"""A plain language-model trainer in the style of the field's classic examples, as an oracle.

Two layers in one torch module, cross entropy averaged over tokens, clipping and SGD written out.
It shares no line with the harness.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def losses(
    kind: str,
    weights: dict[str, Tensor],
    ids: Tensor,
    *,
    nhid: int,
    batch_size: int,
    bptt: int,
    lr: float,
    clip: float,
    wdecay: float,
    alpha: float,
    beta: float,
    gamma: float = 0.0,
    tau: float = 1.0,
    lengths: list[int] | None = None,
) -> Iterator[float]:
    """Yields the nll of each training window; `weights` is the harness model's state_dict.

    `gamma` and `tau` are those of the augmented loss, `lengths` those of the windows in turn, if
    they are not all `bptt`.
    """
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}[kind](nhid, nhid, 2).double()
    embedding = weights["embedding"].clone().requires_grad_()
    bias = weights["decoder_bias"].clone().requires_grad_()
    with torch.no_grad():
        for layer in range(2):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                theirs = weights[f"cells.{layer}.rnn.{name}_l0"]
                getattr(rnn, f"{name}_l{layer}").copy_(theirs)
    parameters = [embedding, bias, *rnn.parameters()]
    length = len(ids) // batch_size
    data = ids[: length * batch_size].view(batch_size, length).t().contiguous()
    hidden = None
    start = 0
    for number in range(length):
        if start >= length - 1:
            break
        steps = min(lengths[number] if lengths else bptt, length - 1 - start)
        x = embedding[data[start : start + steps]]
        output, hidden = rnn(x, hidden)
        hidden = tuple(h.detach() for h in hidden) if kind == "lstm" else hidden.detach()
        scores = output.reshape(-1, nhid) @ embedding.t() + bias
        target = data[start + 1 : start + 1 + steps].reshape(-1)
        start += steps
        nll = -scores.log_softmax(1)[torch.arange(len(target)), target].mean()
        loss = nll + alpha * output.pow(2).mean()
        loss = loss + beta * (output[1:] - output[:-1]).pow(2).mean()
        near = ((embedding[target] @ embedding.t()) / tau).softmax(1).detach()
        divergence = near * (near.log() - (scores / tau).log_softmax(1))
        loss = loss + gamma * tau * divergence.sum(1).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = sum(float(g.pow(2).sum()) for g in gradients) ** 0.5
        scale = min(1.0, clip / (norm + 1e-6))
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= lr * steps / (bptt if lengths else steps) * (scale * g + wdecay * p)
        yield float(nll.detach())
