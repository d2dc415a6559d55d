"""The built-in corpus: its bytes are pinned, its entropy is what a long sample costs."""

from __future__ import annotations

import math
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest

from bench import synthetic
from bench.errors import BadInput
from bench.synthetic import EOS, SPLITS, entropy_rate, generate, source

# Whoever changes these has changed the corpus, and must change synthetic.VERSION.
PINNED = {
    ("train", 200_000, 0): "640cf60f716e95859f9fef8c39cfe7739e2df8d1dcc5daf360147c240206223f",
    ("valid", 20_000, 0): "110409810b1971ba9aa0bbb4c2a7df3efaa3b6df0b51ab7861c7cd03d1191904",
    ("test", 20_000, 0): "a58108596ee1b473b106b143efc42b5d87aacf728bbc340c21fd4cb4850c95df",
    ("train", 2_000, 0): "d35cc05ef5302e2c48163ec2853bcb7dc39ca65a1f28fd514fbbe022f637dfb6",
    ("train", 2_000, 7): "20746d4955c69894bc8ef02421581ceb0ccd5d38ece56781d3c5e93aa080d512",
    ("valid", 2_000, 0): "53aa1f5453c0817650e52ec5cce08ebc999c7b5808e7990e8b49298d7d388c3e",
    ("test", 2_000, 0): "8141b997149ecd31e7d0a763c89992261c68ac080da63a20c9b8134ac7539848",
}


def tokens_of(text: bytes) -> list[str]:
    return text.decode().replace("\n", f" {EOS} ").split()


@pytest.mark.parametrize("arguments", PINNED, ids=str)
def test_bytes_are_pinned(arguments: tuple[str, int, int]) -> None:
    assert sha256(generate(*arguments).text).hexdigest() == PINNED[arguments]
    assert synthetic.VERSION == 1


def test_states_are_distributions_over_distinct_words() -> None:
    for state in source():
        assert len(set(state.words)) == len(state.words) == len(state.following)
        assert all(low < high for low, high in pairwise((0, *state.ends)))
        assert state.ends[-1] == 2**32
        assert math.isclose(sum(state.probabilities()), 1.0, abs_tol=1e-12)
    assert len({word for state in source() for word in state.words}) == 1_604


def test_a_text_starts_in_a_state_of_its_own() -> None:
    assert all(0 not in state.following for state in source())
    assert all(word.endswith("m:") for word in source()[0].words), "the first topic is visible"


def test_stationary_distribution() -> None:
    states = source()
    moves = np.zeros((len(states), len(states)))
    for i, state in enumerate(states):
        np.add.at(moves[i], list(state.following), state.probabilities())
    pi = synthetic.stationary(moves)
    assert pi.min() > -1e-15
    assert pi.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(pi @ moves, pi, atol=1e-14)


def test_entropy_rate_is_what_a_long_sample_costs() -> None:
    assert entropy_rate() == pytest.approx(3.153436615879, abs=1e-11)  # ppl 23.416
    nll = generate("train", 600_000, 11).nll
    # Sentences share a topic, so the error of the mean comes from blocks, not from tokens.
    blocks = nll[: len(nll) // 1_000 * 1_000].reshape(-1, 1_000).mean(axis=1)
    error = blocks.std() / math.sqrt(len(blocks))
    assert error < 0.005
    assert abs(nll.mean() - entropy_rate()) < 4 * error


def test_nll_follows_from_the_visible_text_alone() -> None:
    sample = generate("valid", 3_000, 5)
    words = tokens_of(sample.text)
    nll, state = [], source()[0]
    for word in words:
        i = state.words.index(word)
        nll.append(-math.log(state.probabilities()[i]))
        state = source()[state.following[i]]
    np.testing.assert_array_equal(sample.nll, nll)
    assert sample.nll.dtype == np.float64


def test_a_verb_agrees_with_its_subject_over_a_distance() -> None:
    """In `every NOUN of these NOUNs VERBs` the verb is singular, though the last noun is not."""
    known = {word for state in source() for word in state.words}
    plurals = {w for w in known if len(w) == 5 and w[-1] == "s" and w[:-1] in known}
    verbs = {w for w in known if len(w) == 5 and {w[:-1] + "t", w[:-1] + "n"} <= known}
    far = 0
    for line in generate("train", 50_000, 0).text.decode().splitlines():
        words = line.split()
        subject = words[1] if words[0].endswith("m:") else words[0]
        first_verb = next(i for i, word in enumerate(words) if word in verbs)
        if subject in ("a", "this", "every", "that", "another"):
            assert words[first_verb].endswith("t"), line
            far += any(word in plurals for word in words[:first_verb])
    assert far > 100


def test_topics_hold_over_several_sentences() -> None:
    lines = generate("train", 50_000, 0).text.decode().splitlines()
    opened = sum(line.split()[0].endswith("m:") for line in lines)
    assert 8 < len(lines) / opened < 10  # 9 sentences on average


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("tokens", [1, 2, 17, 5_000])
def test_sentences_are_completed(split: str, tokens: int) -> None:
    sample = generate(split, tokens, 0)
    words = tokens_of(sample.text)
    assert len(words) == len(sample.nll) >= tokens
    assert EOS not in words[max(0, tokens - 1) : -1], "no sentence beyond the first that suffices"
    assert sample.text.endswith(b"\n") and b"\n\n" not in sample.text and b" \n" not in sample.text


def test_a_smaller_sample_is_the_beginning_of_a_larger_one() -> None:
    small, large = generate("train", 3_000, 2), generate("train", 30_000, 2)
    assert large.text.startswith(small.text)


def test_splits_and_seeds_share_no_text() -> None:
    texts = [generate(split, 2_000, seed).text for split in SPLITS for seed in (0, 1, 2**63 - 1)]
    assert len({text[:200] for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("trian", 10, 0), "train"),
        (("train", 0, 0), "tokens 0"),
        (("train", 10**9, 0), "20000000"),
        (("train", 10, -1), "seed -1"),
        (("train", 10, 2**63), "seed"),
    ],
)
def test_bad_input(arguments: tuple[str, int, int], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        generate(*arguments)
