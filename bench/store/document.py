"""docs/results.md, made from the schema."""

from __future__ import annotations

from bench.store.files import COMPACTED
from bench.store.schema import EPOCHS, RUNS, SCHEMA_VERSION, STATUSES, Column

_HEAD = f"""# Records

Made from `bench/store/schema.py` by `python -m bench.store document`; schema {SCHEMA_VERSION}.

Each run is one Parquet file in each of two tables, `results/runs/<run_id>.parquet` and
`results/epochs/<run_id>.parquet`. `python -m bench.store compact` folds them into one file per
table, `{COMPACTED}-<hash>.parquet`, sorted by run_id and read far faster; the hash is of the
content of both, so folders that were compacted apart merge by copying files, too.
`bench.store.load_runs` and `load_epochs`, and so every command here, read any mix of all this, and
each run exactly once.

Other tools read the files as they are, and a run may stand in two of them until the next `compact`:
when it was run again after it was compacted, when a `compact` was killed or is at work, and when
two folders that hold it were copied together. These take one row of each run, that which was
started last:

```python
runs = pandas.read_parquet("results/runs").sort_values("started_utc").groupby("run_id").tail(1)
```

```sql
from 'results/runs/*.parquet'
qualify row_number() over (partition by run_id order by started_utc desc) = 1
```

`epochs` does not say which run a row is of when there are two: `compact` first, or read it by
`load_epochs`.

Each file carries a SHA-256 over all its bytes in its metadata (`bench.sha256`, hashed as 64 zeros),
which other tools read over. Here it is verified at every read: a file in which a bit has flipped is
named, by `python -m bench.store check` too, and its run counts as missing. A file without one, from
before, or written by another tool, is read as it is.

`results/grids/<grid>.json`, the ids of a grid's trials, is written by the harness and never by
hand: its first key, `sha256`, is of all bytes after that line. One that was damaged or edited is
named; starting the grid again writes it anew.

The nll is stored, in nats per predicted token; a perplexity is `exp(nll)`. Columns marked = are
equal between two runs of one trial on one CPU model, thread count and build of torch; the others
are clocks, rates, memory, host, versions and commit.

"""


def as_markdown() -> str:
    """Returns the text of docs/results.md."""
    statuses = "".join(f"| {name} | {meaning} |\n" for name, meaning in STATUSES.items())
    return (
        f"{_HEAD}## runs\n\n{_table(RUNS)}\n## epochs\n\n{_table(EPOCHS)}\n"
        f"## status\n\n| status | meaning |\n| --- | --- |\n{statuses}"
    )


def _table(columns: tuple[Column, ...]) -> str:
    rows = "".join(
        f"| {c.name} | {c.type} | {'=' if c.result else ''} | {c.meaning} |\n" for c in columns
    )
    return f"| column | type | = | meaning |\n| --- | --- | --- | --- |\n{rows}"
