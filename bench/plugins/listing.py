"""How plugins are shown on a terminal: aligned text, at most 100 columns wide, also in a pipe."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator

from bench.plugins.facts import Plugin
from bench.plugins.find import Registry
from bench.plugins.published import MARKS, Published, published
from bench.plugins.spelling import Param, spell

_NOTHING = "–"


def width() -> int:
    """Returns the columns to fill."""
    return max(60, min(100, shutil.get_terminal_size((100, 24)).columns))


def listing(registry: Registry) -> Iterator[str]:
    """Yields the lines of `bench.plugins list`: per plugin what it is, its parameters, its paper.

    The last lines say how many there are and name every broken one.
    """
    names = [name for found in registry.values() for name in found]
    indent = min(26, max(map(len, names), default=0)) + 4
    for kind, found in registry.items():
        yield f"{kind}s"
        for name, plugin in found.items():  # a namesake's has its package in it, for `show`
            yield from _entry(name, plugin, indent)
    broken = [p for found in registry.values() for p in found.values() if p.broken]
    counts = ", ".join(f"{len(found)} {kind}s" for kind, found in registry.items())
    yield f"{counts}; {len(broken) or 'none'} broken" + ("" if not broken else ":")
    for plugin in broken:
        yield from _wrap(f"{plugin.kind} {plugin.name}: {plugin.broken}", 2, 6)


def _entry(key: str, plugin: Plugin, indent: int) -> Iterator[str]:
    first = "BROKEN, see below" if plugin.broken else plugin.summary or "(no docstring)"
    lines = list(_wrap(first, indent, indent))
    lines += _wrap(" ".join(map(_param, plugin.params)), indent, indent)
    lines += _wrap(plugin.paper and f"Paper: {plugin.paper}", indent, indent)
    if plugin.origin != "tree":
        place = "" if plugin.origin in str(plugin.path) else f"{plugin.origin}, "
        lines += _wrap(f"from {place}{plugin.path}", indent, indent)
    name = f"  {key}"
    if len(name) < indent:
        yield f"{name:<{indent}}{lines[0].strip()}"
        yield from lines[1:]
    else:
        yield name
        yield from lines


def _param(param: Param) -> str:
    """`of=dropped|raw`: a parameter with its default, then its other values."""
    default = spell(param.default)
    others = [text for choice in param.choices if (text := spell(choice)) != default]
    return f"{param.name}=" + "|".join([default, *others])


def figures(plugin: Plugin) -> Iterator[str]:
    """Yields what was published for a cell or a regularizer, as a table; nothing if nothing was."""
    rows = [row for row in published() if _of(plugin, row)]
    if not rows:
        return
    marks = "; ".join(f"{mark}: {meaning}" for mark, meaning in MARKS.items())
    yield from _wrap(f"Published elsewhere, under other protocols than ours. {marks}.", 0, 0)
    yield f"  {'corpus':<11}{'units':>5}{'valid':>8}{'test':>8}  mark  model, source, note"
    for row in rows:
        numbers = "".join(f"{_ppl(value):>8}" for value in (row.valid_ppl, row.test_ppl))
        head = f"  {row.corpus:<11}{row.nhid or _NOTHING:>5}{numbers}  {row.mark:<6}"
        text = "; ".join(part for part in (row.model, row.source, row.note) if part)
        lines = list(_wrap(text, len(head), len(head)))
        yield head + lines[0].strip()
        yield from lines[1:]


def _of(plugin: Plugin, row: Published) -> bool:
    if plugin.kind == "cell":
        return row.cell == plugin.name
    return plugin.name in row.regularizer.split("+")


def _ppl(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _wrap(text: str, first: int, later: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        width(),
        initial_indent=" " * first,
        subsequent_indent=" " * later,
        break_long_words=False,
        break_on_hyphens=False,
    )
