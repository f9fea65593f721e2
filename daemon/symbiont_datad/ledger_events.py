"""The ledger as a feed: actions, and runs that failed, as one list of rows that can be filtered. Pure: makes the SQL.

Each filter has an index that it can go by; what the newest rows are asked for reads no more than those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from symbiont_datad.report import printable

FAILED = "job_failed"
"""The kind of the row that stands for a run that failed."""

Query = tuple[str, list[Any]]
"""A statement, and the values of its marks."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for. Times in seconds since the epoch; what is empty or None lets everything pass.

    `path` means it and what lies below it. `covering`: kinds of actions that mean all that is in a directory; with
    `path`, those of the directories that it is in pass too. `text` is looked for in paths, reasons and kinds. `limit`:
    the newest so many (all if negative).
    """

    since: float = 0.0
    until: float | None = None
    path: str | None = None
    kinds: Sequence[str] = ()
    serious: Sequence[str] | None = None
    """Only of these kinds, or what failed whatever its kind."""
    job: str | None = None
    covering: Sequence[str] = ()
    text: str = ""
    after: int = 0
    """Only actions with a larger number than this."""
    limit: int = -1


def actions(wanted: Filter) -> Query:
    """The actions that pass, the newest first: number, then the columns of `Row`."""
    where = ["actions.at >= ?"]
    values: list[Any] = [wanted.since]
    if wanted.until is not None:
        where.append("actions.at < ?")
        values.append(wanted.until)
    if wanted.path is not None:
        shown = printable(wanted.path)
        above = [shown[:at] for at, char in enumerate(shown) if char == "/"] if wanted.covering else []
        where.append(
            "(actions.path = ? or (actions.path > ? and actions.path < ?) "
            f"or (actions.path in ({marks(above)}) and actions.kind in ({marks(wanted.covering)})))"
        )
        values += [shown, shown + "/", shown + "0", *above, *wanted.covering]  # "0" follows "/"
    if wanted.kinds:
        where.append(f"actions.kind in ({marks(wanted.kinds)})")
        values += map(printable, wanted.kinds)
    if wanted.serious is not None:
        where.append(f"(actions.kind in ({marks(wanted.serious)}) or actions.state = 'failed')")
        values += wanted.serious
    if wanted.job is not None:
        where.append("ifnull(runs.job, 'guard') = ?")
        values.append(printable(wanted.job))
    if wanted.text:
        like = f"%{_escaped(wanted.text)}%"
        where.append(
            "(actions.path like ? escape '\\' or actions.reason like ? escape '\\' "
            "or replace(actions.kind, '_', ' ') like ? escape '\\')"
        )
        values += [like, like, like]
    if wanted.after:
        where.append("actions.id > ?")
        values.append(wanted.after)
    query = (
        "select actions.id, actions.at, ifnull(runs.job, 'guard'), kind, path, rule, reason, actions.bytes, state "
        "from actions left join runs on runs.id = actions.run "
        f"where {' and '.join(where)} order by actions.at desc, actions.id desc limit ?"
    )
    return query, [*values, wanted.limit]


def failures(wanted: Filter) -> Query | None:
    """The runs that failed and pass, the newest first, in the columns of `Row`; None when none can pass."""
    if wanted.path is not None or (wanted.kinds and FAILED not in wanted.kinds):
        return None
    where = ["outcome = 'failed'", "started_at >= ?"]
    values: list[Any] = [wanted.since]
    if wanted.until is not None:
        where.append("started_at < ?")
        values.append(wanted.until)
    if wanted.job is not None:
        where.append("job = ?")
        values.append(printable(wanted.job))
    if wanted.text:
        like = f"%{_escaped(wanted.text)}%"
        where.append("(message like ? escape '\\' or job like ? escape '\\' or 'job failed' like ? escape '\\')")
        values += [like, like, like]
    query = (
        f"select ifnull(ended_at, started_at), job, '{FAILED}', '', 'job', message, 0, 'failed' from runs "
        f"where {' and '.join(where)} order by started_at desc limit ?"
    )
    return query, [*values, wanted.limit]


def _escaped(text: str) -> str:
    """Text in which `like` sees no wildcards, and no bytes but as the ledger has them."""
    return printable(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def marks(values: Sequence[object]) -> str:
    """A question mark for each value, for a statement of SQL."""
    return ", ".join("?" * len(values))


LAST_RUNS = """
with recursive jobs (job) as (
    select min(job) from runs
    union all select (select min(job) from runs where runs.job > jobs.job) from jobs where jobs.job is not null)
select {columns} from jobs join runs on runs.id = (
    select id from runs where runs.job = jobs.job {only} order by id desc limit 1)
"""
"""The newest run of each job: one step into the index for each, however many runs there are. The newest by number: the
clock may have been ahead when an earlier one ran."""

KINDS_SINCE = """
with recursive kinds (kind) as (
    select min(kind) from actions
    union all select (select min(kind) from actions where actions.kind > kinds.kind) from kinds
    where kinds.kind is not null)
select kind, (select count(*) from actions where actions.kind = kinds.kind and at >= ?) from kinds
where kind is not null
"""
"""How many actions of each kind there were since a time: reads of the index what is counted, and nothing else."""

DAYS_SINCE = """
with recursive kinds (kind) as (
    select min(kind) from actions
    union all select (select min(kind) from actions where actions.kind > kinds.kind) from kinds
    where kinds.kind is not null)
select kinds.kind, cast(at / 86400 as integer), count(*) from kinds join actions on actions.kind = kinds.kind
where actions.at >= ? group by 1, 2
"""
"""The same by day (number of days since the epoch, UTC)."""
