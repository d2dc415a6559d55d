"""Several trials side by side in one process: they take turns, a window each.

On a GPU a turn only begins its window's work, on the trial's own stream, and returns: the device
has that of all of them at once. The trials know nothing of each other, so their numbers are those
they have alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

J = TypeVar("J")
MOST = 32
"""Trials beyond this on one device only share what fewer fill already."""


@dataclass
class _Running(Generic[J]):
    job: J
    turns: Generator[Any, None, Any]
    company: int = 1


def take_turns(
    jobs: Iterable[J],
    begin: Callable[[J], Generator[Any, None, Any]],
    width: Callable[[], int],
    together: Callable[[J, J], bool] = lambda one, other: True,
    heard: Callable[[Any], None] = lambda said: None,
) -> Iterator[tuple[J, int, Any]]:
    """Yields (job, company, outcome) as each job ends.

    `begin` starts a job: a generator of turns that returns the outcome; what it raises is the
    outcome too. What it yields, unless None, goes to `heard`, whose errors are the caller's. At
    most `width()` run side by side, asked anew whenever there may be room, and only those that may
    be `together`; the next is taken from `jobs` when there is room for it, in their order.
    `company` is the most that ran side by side while this one did, itself included.
    """
    source, ended = iter(jobs), False
    held: list[J] = []
    running: list[_Running[J]] = []
    ends: list[tuple[J, int, Any]] = []
    while True:
        while len(running) < max(1, width()):
            if not held and not ended:
                held = [job for job in [next(source, None)] if job is not None]
                ended = not held
            if not held or (running and not together(running[0].job, held[0])):
                break
            job = held.pop()
            running.append(_Running(job, begin(job)))
        if not running:
            return
        for one in running:
            one.company = max(one.company, len(running))
        for one in list(running):
            said = None
            try:
                said = next(one.turns)
            except StopIteration as end:
                ends.append((one.job, one.company, end.value))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                ends.append((one.job, one.company, error))
            if said is not None:
                heard(said)
            if ends:
                running.remove(one)
                yield ends.pop()  # nothing here keeps an error, and by it the memory of its trial


def room(device: str) -> int:
    """Returns how many trials like the one that runs alone now fit into the device's memory.

    By the most that it has taken so far. A CPU's trials have a core each, in processes of their
    own: 1.
    """
    if device != "cuda":
        return 1
    import torch

    free, _ = torch.cuda.mem_get_info()
    taken = torch.cuda.max_memory_reserved()
    return max(1, min(MOST, int(0.9 * (free + taken) / max(taken, 1))))
