"""The built-in corpus: a random source of words whose entropy rate is known exactly.

A sentence grammar with three lengths of memory, so that a model which remembers more scores better:

* word order: which class of word follows which (the last word is enough);
* agreement: a verb has the number of its subject, whatever nouns stand between (several words);
* topic: a marker word opens a topic that holds for several sentences and decides which nouns,
  verbs, adjectives and adverbs are in use (tens of words).

The source is unifilar: its state (topic, place in the sentence, number of the subject) and the next
word fix the next state, so the state is a function of the visible text. That makes the probability
of every word, and through the stationary distribution the entropy rate, exactly computable: in the
long run no model can be better.

Nothing depends on the platform: probabilities are integers out of 2**32 and draws are SHA-256 in
counter mode, with no floating point and no library generator between the seed and the text. Train,
valid and test have separate hash keys. The seed changes the sample alone; the grammar is fixed for
a VERSION, and whatever changes the text must change VERSION.
"""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate, islice
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BadInput, nearest, one_line

if TYPE_CHECKING:  # numpy is imported where it is used: `--help` of a verb needs none
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
SPLITS = ("train", "valid", "test")
MAX_TOKENS = 20_000_000  # a sample is made in memory; this many take about 10 s and 0.5 GB
MAX_SEED = 2**63 - 1

EOS = "<eos>"  # in the text itself: the end of a line

_BITS = 32  # every probability is an integer out of 2**_BITS
_TOPICS = 10


class _Kind(NamedTuple):
    """How many stems of a kind each topic has for itself and all topics share, and their forms.

    The word of rank r (from 0) has weight 1 / (r + flat): Zipf's law with its head flattened.
    """

    own: int
    shared: int
    flat: int
    endings: dict[str, str]  # word class: what it adds to the stem


# Chosen by measurement: topics with clean lists of words are learned within 10 epochs of 50,000
# tokens, and the few shared stems make it worth to remember more than the last noun.
_KINDS = {
    "noun": _Kind(46, 4, 6, {"noun_sg": "", "noun_pl": "s"}),
    "verb": _Kind(28, 4, 6, {"verb_sg": "t", "verb_pl": "n"}),
    "adj": _Kind(0, 50, 4, {"adj": "lic"}),
    "adv": _Kind(0, 25, 3, {"adv": "ly"}),
}
_CLOSED = {  # classes of words that no topic changes, most frequent word first
    "the": ("the",),
    "det_sg": ("a", "this", "every", "that", "another"),
    "det_pl": ("these", "many", "all", "those", "several"),
    "prep": ("of", "near", "with", "under", "behind", "without"),
    "who": ("who", "which"),
    "and": ("and", "then", "but"),
    "eos": (EOS,),
}

Arc = tuple[int, str, str]  # its share of the place's sum, a word class, the next place


def _phrase(name: str, after_sg: str, after_pl: str) -> dict[str, list[Arc]]:
    """Returns the places of a noun phrase; its noun leads to `after_sg` or `after_pl`."""
    return {
        f"{name} det": [(2, "the", name), (1, "det_sg", f"{name} sg"), (1, "det_pl", f"{name} pl")],
        name: [(2, "adj", name), (3, "noun_sg", after_sg), (3, "noun_pl", after_pl)],
        f"{name} sg": [(1, "adj", f"{name} sg"), (3, "noun_sg", after_sg)],
        f"{name} pl": [(1, "adj", f"{name} pl"), (3, "noun_pl", after_pl)],
    }


def _places() -> dict[str, list[Arc]]:
    """Returns the grammar. Places in `[sg]` and `[pl]` remember the number of the subject."""
    places = _phrase("subject", "after subject [sg]", "after subject [pl]")
    places["text"] = [(1, "marker", "subject det")]  # a text opens with a marker: no hidden topic
    places["sentence"] = [(1, "marker", "subject det")] + [
        (2 * share, word_class, place) for share, word_class, place in places["subject det"]
    ]
    for number in ("sg", "pl"):
        at, verb = f"[{number}]", f"verb_{number}"
        places |= _phrase(f"inner {at}", f"after subject {at}", f"after subject {at}")
        places |= _phrase(f"object {at}", f"after object {at}", f"after object {at}")
        places[f"after subject {at}"] = [
            (6, verb, f"after verb {at}"),
            (2, "prep", f"inner {at} det"),
            (1, "who", f"clause {at}"),
        ]
        places[f"clause {at}"] = [(1, verb, f"inner {at} det")]
        places[f"after verb {at}"] = [
            (2, "eos", "sentence"),
            (2, "adv", f"after object {at}"),
            (6, "the", f"object {at}"),
            (3, "det_sg", f"object {at} sg"),
            (3, "det_pl", f"object {at} pl"),
        ]
        places[f"after object {at}"] = [
            (5, "eos", "sentence"),
            (2, "and", f"clause end {at}"),
            (2, "prep", f"object {at} det"),
        ]
        places[f"clause end {at}"] = [(1, verb, f"after verb {at}")]
    return places


def _stem(index: int) -> str:
    """Returns the readable pseudo-word of this index, unique below 6,400."""
    consonants, vowels = "bdfgklmnprstvzhj", "aeiou"
    scattered = index * 2_927 % 6_400  # coprime to 6,400, so that neighbours look unlike
    syllables = (scattered // 80, scattered % 80)
    return "".join(consonants[s // 5] + vowels[s % 5] for s in syllables)


def _lexicon() -> tuple[list[str], list[dict[str, list[tuple[str, int]]]]]:
    """Returns the marker of each topic, and per topic the (word, weight) list of every class."""
    stems = map(_stem, range(6_400))
    markers = [stem + "m:" for stem in islice(stems, _TOPICS)]
    shared = {name: list(islice(stems, kind.shared)) for name, kind in _KINDS.items()}
    topics = []
    for topic in range(_TOPICS):
        words = {name: _weighted(closed, 1) for name, closed in _CLOSED.items()}
        for name, kind in _KINDS.items():
            ranked = list(islice(stems, kind.own)) or shared[name]
            if kind.own:  # the shared stems stand at ranks that differ from topic to topic
                for i, stem in enumerate(shared[name]):
                    ranked.insert((5 * i + 3 * topic) % len(ranked), stem)
            for word_class, ending in kind.endings.items():
                words[word_class] = _weighted([stem + ending for stem in ranked], kind.flat)
        topics.append(words)
    return markers, topics


def _weighted(words: Sequence[str], flat: int) -> list[tuple[str, int]]:
    return [(word, 1_000_000 // (rank + flat)) for rank, word in enumerate(words)]


class State(NamedTuple):
    """One state: its words in order, the upper ends of their shares of 2**_BITS, what follows."""

    words: tuple[str, ...]
    ends: tuple[int, ...]
    following: tuple[int, ...]

    def probabilities(self) -> list[float]:
        """Returns the probability of each word; exact, since 32 bits fit into a float."""
        lows = (0, *self.ends[:-1])
        return [(end - low) / 2**_BITS for low, end in zip(lows, self.ends, strict=True)]


@lru_cache(maxsize=1)
def source() -> tuple[State, ...]:
    """Returns all states; state 0 is where every text starts, and it is never entered again."""
    markers, topics = _lexicon()
    places = _places()
    names = [(0, "text")] + [(t, p) for t in range(_TOPICS) for p in places if p != "text"]
    index = {name: i for i, name in enumerate(names)}
    states = []
    for topic, place in names:
        words: list[str] = []
        ends: list[int] = []
        following: list[int] = []
        arcs = places[place]
        total = sum(share for share, _, _ in arcs)
        done = 0
        for share, word_class, target in arcs:
            low, high = (done << _BITS) // total, ((done + share) << _BITS) // total
            done += share
            if word_class == "marker":  # a change of topic is always a change
                new = [t for t in range(_TOPICS) if t != topic or place == "text"]
                choices = [(markers[t], 1, index[t, target]) for t in new]
            else:
                to = index[topic, target]
                choices = [(word, weight, to) for word, weight in topics[topic][word_class]]
            weights, reached = sum(weight for _, weight, _ in choices), 0
            for word, weight, to in choices:
                reached += weight
                words.append(word)
                ends.append(low + (high - low) * reached // weights)
                following.append(to)
        states.append(State(tuple(words), tuple(ends), tuple(following)))
    return tuple(states)


@lru_cache(maxsize=1)
def entropy_rate() -> float:
    """Returns the entropy rate of the source in nats per token: its long-run nll, the floor."""
    import numpy as np

    states = source()
    entropies = np.zeros(len(states))
    moves = np.zeros((len(states), len(states)))
    for i, state in enumerate(states):
        for p, to in zip(state.probabilities(), state.following, strict=True):
            entropies[i] -= p * math.log(p)
            moves[i, to] += p
    return float(stationary(moves) @ entropies)


def stationary(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the stationary distribution of a chain with one recurrent class; [S,S] -> [S]."""
    import numpy as np

    # pi (P - 1) = 0 has one redundant equation: it makes room for sum(pi) = 1.
    system = moves.T - np.eye(len(moves))
    system[-1] = 1.0
    right = np.zeros(len(moves))
    right[-1] = 1.0
    return np.asarray(np.linalg.solve(system, right), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Sample:
    """A text and what the source itself says of it.

    text: UTF-8, one sentence per line, words separated by one space, every line ended.
    nll: float64 [N], nats of each token given all before it; one token per word and one per line
        end. The first is included, so N is the number of tokens.
    """

    text: bytes
    nll: NDArray[np.float64]


def _draws(split: str, seed: int) -> Iterator[tuple[int, ...]]:
    """Yields blocks of uniform integers below 2**32."""
    key = sha256(f"recurrent-bench synthetic {VERSION} {split} {seed}".encode()).digest()
    unpack = struct.Struct(">2048I").unpack
    counter = 0
    while True:
        counters = range(counter, counter + 256)
        yield unpack(b"".join(sha256(key + i.to_bytes(8, "big")).digest() for i in counters))
        counter += 256


def generate(split: str, tokens: int, seed: int) -> Sample:
    """Returns a sample of at least `tokens` tokens; its last sentence is completed.

    A pure function of its arguments and VERSION. Raises BadInput for an unknown split, or tokens
    not in 1 to MAX_TOKENS, or a seed not in 0 to MAX_SEED.
    """
    if split not in SPLITS:
        raise BadInput(f"split {one_line(split, 40)!r} is unknown. {nearest(split, SPLITS)}")
    if not 1 <= tokens <= MAX_TOKENS:
        raise BadInput(f"tokens {tokens}: give a whole number from 1 to {MAX_TOKENS}")
    if not 0 <= seed <= MAX_SEED:
        raise BadInput(f"seed {seed}: give a whole number from 0 to {MAX_SEED}")
    states = source()
    starts = [0, *accumulate(len(state.words) for state in states)]  # the number of its first arc
    tables = [(state.ends, starts[i], state.following) for i, state in enumerate(states)]
    ends_line = [word == EOS for state in states for word in state.words]
    path = array("I")
    append = path.append
    now = 0
    for block in _draws(split, seed):
        for draw in block:
            ends, start, following = tables[now]
            i = bisect_right(ends, draw)
            append(start + i)
            now = following[i]
        for last in range(tokens - 1, len(path)):
            if ends_line[path[last]]:
                return _sample(path[: last + 1])
    raise AssertionError("the draws do not end")


def _sample(path: array[int]) -> Sample:
    """Returns the text and nll of a path, given as arc numbers."""
    import numpy as np

    nlls: list[float] = []
    pieces: list[str] = []
    for state in source():
        pieces += ["\n" if word == EOS else word + " " for word in state.words]
        nlls += [-math.log(p) for p in state.probabilities()]
    text = "".join([pieces[arc] for arc in path]).replace(" \n", "\n").encode()
    return Sample(text, np.array(nlls)[np.frombuffer(path, dtype=np.uintc)])
