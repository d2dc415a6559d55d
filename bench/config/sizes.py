"""What building a trial's cells tells before anything starts: whether they can be, and their size.

Cells are built on torch's meta device, which allocates nothing and draws nothing.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from bench.config.trial import Trial, make_trial, select
from bench.errors import BadInput, one_line
from bench.plugins import Registry, Selected, load_class

MAX_NHID = 100_000
MAX_PARAMS = 10**13
REACH = 1024
"""How many sizes are tried for one that a cell takes: some take multiples of 2, or of 64, alone."""
TOLERANCE = 0.05
"""How far, as a share, the nearest size may be from `num_params`."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


class _Refused(BadInput):
    """The cell's own objection to its hyper-parameters or sizes."""


class Sizes:
    """Builds cells on the meta device, each spelling and size once."""

    def __init__(self, registry: Registry, vocab_size: Callable[[str], int]) -> None:
        self.registry = registry
        self.vocab_size = functools.cache(vocab_size)
        self._found: dict[tuple[str, str, int, int], int | str | None] = {}

    def check(self, trial: Trial, where: str) -> None:
        """Raises BadInput when a layer's cell refuses its hyper-parameters or its sizes."""
        for sizes in dict.fromkeys(trial.layer_sizes):
            self._layer(select(trial, self.registry)[0], *sizes, where)

    def solve(self, values: dict[str, Any], where: str) -> dict[str, Any]:
        """Returns a trial's values with the `nhid` that comes nearest to its `num_params`.

        emsize follows nhid unless it is given. Raises BadInput when both sizes are given, when nhid
        has no effect, or when none comes within TOLERANCE.
        """
        rest = {name: value for name, value in values.items() if name != "num_params"}
        if len(rest) == len(values):
            return values
        target = _count(values["num_params"], where)
        if "nhid" in rest:
            raise BadInput(f"{where}: nhid and num_params are both given; leave one out")
        one = make_trial(rest | {"nhid": 1}, self.registry, where)
        cell = select(one, self.registry)[0]
        if len({trial.layer_sizes[0] for trial in (one, _sized(rest, 2))}) == one.nlayers == 1:
            raise BadInput(f"{where}: num_params: nhid changes nothing in one tied layer of emsize")

        @functools.cache
        def params(nhid: int) -> int | None:
            try:
                return self._params(_sized(rest, nhid), cell, where)
            except _Refused:
                return None

        def first(sizes: Iterable[int]) -> int | None:
            return next((n for n in sizes if params(n) is not None), None)

        def below(nhid: int) -> int | None:
            return first(range(nhid, max(0, nhid - REACH), -1))

        def too_large(nhid: int) -> bool:
            size = below(nhid)
            return size is not None and (params(size) or 0) > target

        if first(range(1, REACH + 1)) is None:
            self._params(_sized(rest, REACH), cell, where)  # raises the cell's objection
        high = 1
        while high < MAX_NHID and not too_large(high):
            high = min(2 * high, MAX_NHID)
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if too_large(middle) else (middle, high)
        near = [below(low), first(range(high, min(high + REACH, MAX_NHID) + 1))]
        size, nhid = min((abs((params(n) or 0) - target), n) for n in near if n)
        if size > TOLERANCE * target:
            raise BadInput(
                f"{where}: num_params {one_line(values['num_params'], 40)} cannot be met: with "
                f"{cell.spelling} and the {self.vocab_size(one.corpus):,} words of {one.corpus}, "
                f"nhid {nhid} comes nearest and has {params(nhid):,} parameters; "
                f"give {'more' if (params(nhid) or 0) > target else 'another number'}"
            )
        return rest | {"nhid": nhid}

    def _params(self, trial: Trial, cell: Selected, where: str) -> int:
        # The model's own count (see bench.model), without building the model.
        assert trial.emsize is not None
        words = self.vocab_size(trial.corpus)
        total = words * (trial.emsize + 1)
        if not trial.tied:
            total += words * trial.layer_sizes[-1][1]
        for sizes in trial.layer_sizes:
            layer = self._layer(cell, *sizes, where)
            if layer is None:
                raise BadInput(
                    f"{where}: num_params: cell {cell.spelling} cannot be built on torch's meta "
                    "device, where sizes are counted; give nhid, or let its __init__ read no values"
                )
            total += layer
        return total

    def _layer(self, cell: Selected, size_in: int, size_out: int, where: str) -> int | None:
        key = (cell.spelling, cell.plugin.hash, size_in, size_out)
        if key not in self._found:
            self._found[key] = _build(cell, size_in, size_out)
        found = self._found[key]
        if isinstance(found, str):
            raise _Refused(f"{where}: cell {cell.spelling}: {found}")
        return found


def _sized(values: dict[str, Any], nhid: int) -> Trial:
    return Trial(**{**values, "nhid": nhid})


def _build(cell: Selected, size_in: int, size_out: int) -> int | str | None:
    """Returns the parameters of one layer, or the cell's own objection.

    Whatever else goes wrong is None: it is the trial's to record, with its traceback.
    """
    import torch

    make = load_class(cell.plugin)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # they come again when the trial is built
            module = make(size_in, size_out, **cell.hparams)
            return int(sum(p.numel() for p in module.parameters() if p.requires_grad))
    except ValueError as error:
        return one_line(error, 200)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def _count(value: object, where: str) -> int:
    text = str(value).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmgb]?)", text)
    count = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= count <= MAX_PARAMS or isinstance(value, bool):
        raise BadInput(
            f"{where}: num_params: {one_line(value, 40)!r} must be a number above 0, such as 24M"
        )
    return round(count)
