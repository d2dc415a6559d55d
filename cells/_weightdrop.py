"""DropConnect on the recurrent weights of torch's fused one-layer LSTM and GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Noise


def weights(rnn: nn.RNNBase, noise: Noise | None, wdrop: float) -> list[Tensor]:
    """Returns (w_ih, w_hh, b_ih, b_hh) of a one-layer `rnn`, w_hh [G*H,H] under this window's mask.

    The parameters stay as they are: the mask is on a copy, through which gradients reach them.
    """
    w_ih, w_hh, b_ih, b_hh = rnn.parameters()
    if noise is None or wdrop == 0:
        return [w_ih, w_hh, b_ih, b_hh]
    dropped = [w_ih, w_hh * noise.mask("weights", tuple(w_hh.shape), wdrop), b_ih, b_hh]
    if not w_hh.is_cuda:
        return dropped
    # cuDNN wants all weights in one piece of memory, in this order; otherwise it copies them itself
    # and warns about it at every call.
    flat = torch.cat([w.flatten() for w in dropped])
    pieces = torch.split(flat, [w.numel() for w in dropped])
    return [piece.view_as(w) for piece, w in zip(pieces, dropped, strict=True)]
