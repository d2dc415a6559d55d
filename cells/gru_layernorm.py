"""GRU whose products with the input and with the last output are normalised over the units.

r, z = split(LN(W_hh_rz h_{t-1}; gain) + LN(W_ih_rz x_t; gain) + b_rz), sigmoid on both;
n = tanh(LN(W_ih_n x_t; gain, b_n) + r * LN(W_hh_n h_{t-1}; gain, b_hn));
h_t = (1 - z) * n + z * h_{t-1};
LN(a; gain) = gain * (a - mean(a)) / sqrt(var(a) + 1e-5), the mean and the biased variance of one
column at one step, over the 2H pre-activations of r and z together, over the H of n alone.

Gate order: r, z, n. Shapes: W_ih [3H,I], W_hh [3H,H], gain_ih and gain_hh [3H], b (b_rz, b_n)
[3H], b_hn [H]; state (h,), [B,H]. Weights uniform in +-1/sqrt(H), gains 1, biases 0.

Paper: Ba, Kiros & Hinton 2016, arXiv 1607.06450.

Formula, groups and 1e-5 are those of the paper and its authors' code; z keeps h_{t-1}, as in that
code and in the gru cell, where the paper writes z and 1 - z the other way round. They give both
products of r and z a bias; only the sum matters, so here it is one. They draw the weights otherwise
(orthogonal W_hh); but for the 1e-5 their scale does not matter to the output.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bench.api import Noise, State
from bench.products import linear, product

from ._norm import EPSILON, OVER_UNITS


class LayerNormGRU(Function):
    """The time loop, with the normalised products of the input given.

    term_rz [T,B,2H], term_n [T,B,H], h [B,H], w_rz [2H,H], w_n [H,H], gain_rz [2H], gain_n [H],
    b_hn [H] -> raw [T,B,H].
    """

    @staticmethod
    def forward(
        ctx: Any,
        term_rz: Tensor,
        term_n: Tensor,
        h: Tensor,
        w_rz: Tensor,
        w_n: Tensor,
        gain_rz: Tensor,
        gain_n: Tensor,
        b_hn: Tensor,
    ) -> Tensor:
        h_0, fast_rz, fast_n = h, w_rz.t().contiguous(), w_n.t().contiguous()
        gates = torch.empty_like(term_rz)
        recalls, news, raw = (torch.empty_like(term_n) for _ in range(3))
        products_rz, products_n, stats = [], [], []
        for t in range(term_n.shape[0]):
            products_rz.append(product(h, fast_rz))
            products_n.append(product(h, fast_n))
            normed, *stats_rz = OVER_UNITS.forward(products_rz[t], gain_rz, None)
            r, z = torch.add(term_rz[t], normed, out=gates[t]).sigmoid_().chunk(2, 1)
            recall, *stats_n = OVER_UNITS.forward(products_n[t], gain_n, b_hn)
            n = torch.addcmul(term_n[t], r, recall, out=news[t]).tanh_()
            h = torch.lerp(n, h, z, out=raw[t])
            recalls[t] = recall
            stats.append((*stats_rz, *stats_n))
        per_step = (torch.stack(each) for each in zip(*stats, strict=True))
        ctx.save_for_backward(
            h_0, w_rz, w_n, gain_rz, gain_n, gates, recalls, news, raw, *per_step,
            *products_rz, *products_n,
        )  # fmt: skip
        return raw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, draw: Tensor) -> tuple[Tensor, ...]:
        h_0, w_rz, w_n, gain_rz, gain_n, gates, recalls, news, raw, *rest = ctx.saved_tensors
        mean_rz, rstd_rz, mean_n, rstd_n, *products = rest
        steps = raw.shape[0]
        h_before = torch.cat([h_0.unsqueeze(0), raw[:-1]])
        r, z = gates.chunk(2, 2)
        # What dh_t is multiplied by to give the gradients of the pre-activations.
        aten = torch.ops.aten
        factor_n = aten.tanh_backward(1 - z, news)
        factor_recall = factor_n * r
        factor_rz = torch.empty_like(gates)
        factor_r, factor_z = factor_rz.chunk(2, 2)
        aten.sigmoid_backward.grad_input(factor_n * recalls, r, grad_input=factor_r)
        aten.sigmoid_backward.grad_input(h_before - news, z, grad_input=factor_z)

        pair = (*raw.shape[:2], 2, -1)
        by_gate = factor_rz.view(pair)
        dhs, drz = torch.empty_like(raw), torch.empty_like(gates)
        drz_by_gate = drz.view(pair)
        dproducts_rz, dproducts_n, dgains_rz, dgains_n, dbiases = [], [], [], [], []
        dh = draw[-1]
        for t in reversed(range(steps)):
            dhs[t] = dh
            torch.mul(dh.unsqueeze(1), by_gate[t], out=drz_by_gate[t])
            to_rz, dgain, _ = OVER_UNITS.backward(
                drz[t], products[t], gain_rz, mean_rz[t], rstd_rz[t], [True, True, False]
            )
            dproducts_rz.append(to_rz)
            dgains_rz.append(dgain)
            drecall = dh * factor_recall[t]
            to_n, dgain, dbias = OVER_UNITS.backward(
                drecall, products[steps + t], gain_n, mean_n[t], rstd_n[t], [True, True, True]
            )
            dproducts_n.append(to_n)
            dgains_n.append(dgain)
            dbiases.append(dbias)
            dh = dh * z[t]
            if t:
                dh += draw[t - 1]
            dh += product(to_rz, w_rz)
            dh += product(to_n, w_n)
        before = h_before.flatten(0, 1)
        dgain_rz, dgain_n, db_hn = (
            torch.stack(each).sum(0) for each in (dgains_rz, dgains_n, dbiases)
        )
        dw_rz = product(torch.cat(dproducts_rz[::-1]).t(), before)
        dw_n = product(torch.cat(dproducts_n[::-1]).t(), before)
        return drz, dhs.mul_(factor_n), dh, dw_rz, dw_n, dgain_rz, dgain_n, db_hn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        bound = hidden_size**-0.5
        self.w_ih = nn.Parameter(torch.empty(3 * hidden_size, input_size).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.gain_ih = nn.Parameter(torch.ones(3 * hidden_size))
        self.gain_hh = nn.Parameter(torch.ones(3 * hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.bias_hn = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch_size: int) -> State:
        return (self.w_hh.new_zeros(batch_size, self.w_hh.shape[1]),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        rz, n = slice(0, 2 * self.w_hh.shape[1]), slice(2 * self.w_hh.shape[1], None)
        raw = LayerNormGRU.apply(  # type: ignore[no-untyped-call]
            self._term(x, rz), self._term(x, n), *state,
            self.w_hh[rz], self.w_hh[n], self.gain_hh[rz], self.gain_hh[n], self.bias_hn,
        )  # fmt: skip
        return raw, (raw[-1],)

    def _term(self, x: Tensor, gates: slice) -> Tensor:
        gain = self.gain_ih[gates]
        term = linear(x, self.w_ih[gates])
        return F.layer_norm(term, gain.shape, gain, self.bias[gates], EPSILON)
