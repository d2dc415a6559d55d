"""docs/results.md, made from the schema."""

from __future__ import annotations

from bench.store.files import COMPACTED
from bench.store.schema import EPOCHS, RUNS, SCHEMA_VERSION, STATUSES, Column

_HEAD = f"""# Records

Made from `bench/store/schema.py` by `python -m bench.store document`; schema {SCHEMA_VERSION}.

Each run is one immutable Parquet file in each of two tables, `results/runs/<run_id>.parquet` and
`results/epochs/<run_id>.parquet`. `python -m bench.store compact` folds them into one file per
table, `{COMPACTED}`, sorted by run_id and read far faster. Any tool reads any mix of both:

```python
runs = pandas.read_parquet("results/runs")
```

```sql
select cell, regularizer, avg(test_nll) from 'results/runs/*.parquet'
where status = 'ok' group by all
```

A run that was run again after it was compacted stands in both files until the next `compact`, and
for a moment so do runs that are just being compacted: the file with the run's name is the newer
one. `bench.store.load_runs`, and so every command here, reads each run exactly once.

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
