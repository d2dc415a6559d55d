"""Zoneout (Krueger et al. 2017, arXiv 1606.01305): a unit keeps its old value now and then."""

from __future__ import annotations

from torch import Tensor

from bench.api import Noise


def share_of_new(
    name: str, shape: tuple[int, ...], z: float, noise: Noise | None, like: Tensor
) -> Tensor | None:
    """Returns how much of each new value is taken, [T,B,H] = shape; None: all of it, as z is 0.

    1 where the new value is taken and 0 where the old one is kept, which happens with probability
    z; without noise the expectation, 1 - z.
    """
    if z == 0:
        return None
    if noise is None:
        return like.new_full((), 1 - z).expand(shape)
    return noise.mask(name, shape, z).sign()  # the mask's 1/(1-z) has no place here
