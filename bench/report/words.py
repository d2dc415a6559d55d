"""How numbers are said: formats, and the few adjectives that the report allows itself."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

from bench.stats import Estimate

NOTHING = "\u2013"
MINUS = "\u2212"
TIMES = "\u00d7"
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    """The text with what cannot be seen, or turns the text around it, as `\\u202e`.

    Names of folders and hosts and the texts of errors may hold any of it.
    """
    if text.isprintable():  # nearly always, and found out fast
        return text
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def ppl(nll: float | None) -> str:
    """Perplexity of an nll in nats, one decimal."""
    if nll is None:
        return NOTHING
    if nll > 700:
        return f"exp({nll:.0f})"  # beyond a float
    return f"{math.exp(nll):,.1f}" if nll < 13 else f"{math.exp(nll):.1e}"


def ppl_interval(nll: Estimate) -> str:
    """Interval taken in nats, then exponentiated; empty where there is none."""
    return "" if nll.half is None else f"[{ppl(nll.low)}, {ppl(nll.high)}]"


def change(difference: float) -> str:
    """A difference in perplexity, one decimal, with a true minus."""
    return f"{difference:+,.1f}".replace("-", MINUS)


def nats(value: float | None, sign: bool = False) -> str:
    """Four decimals, with a true minus."""
    if value is None:
        return NOTHING
    return (f"{value:+.4f}" if sign else f"{value:.4f}").replace("-", MINUS)


def nats_interval(difference: Estimate) -> str:
    """Interval of a difference in nats."""
    if difference.half is None:
        return NOTHING
    return f"[{nats(difference.low, True)}, {nats(difference.high, True)}]"


def ratio(log_ratio: Estimate) -> str:
    """A mean of logarithms as a factor, with its interval."""
    if not -20 < log_ratio.mean < 20:
        return NOTHING  # no clocks of one device
    text = f"{TIMES} {math.exp(log_ratio.mean):.2f}"
    if log_ratio.low is None or log_ratio.high is None:
        return text
    if log_ratio.high > 20 or log_ratio.low < -20:
        return f"{text} [too wide]"
    return f"{text} [{math.exp(log_ratio.low):.2f}, {math.exp(log_ratio.high):.2f}]"


def p_value(p: float | None) -> str:
    """Three decimals."""
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 0) -> str:
    """Thousands separated."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def size(parameters: float) -> str:
    """A number of parameters in three digits: `24.0M`, `812k`, `9.4k`, `640`."""
    if parameters < 999.5:
        return f"{parameters:.0f}"
    if parameters < 999_500:
        thousands = parameters / 1e3
        return f"{thousands:.1f}k" if thousands < 99.95 else f"{thousands:.0f}k"
    return f"{parameters / 1e6:,.1f}M"


def standing(n: int) -> str:
    """What n repetitions are good for."""
    if n < 3:
        return "too few to say anything"
    return "a look" if n < 5 else "a result"


def verdict(difference: Estimate, below: str = "lower", above: str = "higher") -> str:
    """The difference in words: said only if its 95 % interval leaves out zero."""
    if difference.low is None or difference.high is None or difference.n < 3:
        return "too few pairs to say anything"
    said = below if difference.high < 0 else above if difference.low > 0 else "no difference shown"
    return f"{said} ({standing(difference.n)})"


def count(items: Iterable[str]) -> str:
    """`33 ok, 1 diverged`, in order of first appearance."""
    return ", ".join(f"{n} {item}" for item, n in Counter(items).items())
