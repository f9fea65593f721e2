"""The ledger's own retention: what it forgets, so that it stays bounded. A little at a time: each step is a short
transaction, and others wait for it.

A run that did nothing and left nothing is of no interest after a week; actions and other runs go by age, and by number
where there are too many. The newest run, the newest success and the newest failure of each job stay, whatever their
age; so do the removals of audit archives, which explain the gaps that `check` finds in their chain.
"""

import sqlite3
from dataclasses import dataclass

from symbiont_datad.quantities import DAY

_STEP = 5000
"""Rows that go in one step."""
_STEPS = 20
_QUIET_S = 7 * DAY


@dataclass(frozen=True, slots=True)
class Limits:
    """How long actions and runs are kept, in seconds, and how many actions at most. None is no limit.

    What is below one of the `kept_below` directories never goes.
    """

    max_age_s: float | None = None
    max_rows: int | None = None
    kept_below: tuple[str, ...] = ()


KEEP_ALL = Limits()


def steps(limits: Limits, now: float) -> list[tuple[str, dict[str, float | str]]]:
    """The statements that forget, each at most a step's rows."""
    names = {f"below{number}": path for number, path in enumerate(limits.kept_below)}
    spared = "".join(f" and not (path > :{name} || '/' and path < :{name} || '0')" for name in names)
    found: list[tuple[str, dict[str, float | str]]] = []
    if limits.max_rows is not None:  # numbers are given in turn, so they tell how many there are without counting
        oldest = "(select max(id) from actions) - :most"
        found.append((_some("actions", f"id <= {oldest}{spared}", "id"), {"most": limits.max_rows, **names}))
    if limits.max_age_s is not None:
        end = now - limits.max_age_s
        newest = "id < (select max(id) from actions)"
        found.append((_some("actions", f"at < :end and {newest}{spared}", "at"), {"end": end, **names}))
        # Later than its last action: a row that stays must not lose the run that it names.
        below = "(select run from actions where run > 0 and path > :{0} || '/' and path < :{0} || '0')"
        told = "".join(f" and id not in {below.format(name)}" for name in names)
        found.append((_some("runs", f"started_at < :end{_SPARED_RUNS}{told}", "id"), {"end": end - DAY, **names}))
    quiet = "started_at < :end and outcome = 'done' and actions = 0 and message = ''"
    found.append((_some("runs", f"{quiet}{_SPARED_RUNS}", "id"), {"end": now - _QUIET_S}))
    return found


_SPARED_RUNS = """
 and id not in (select max(id) from runs group by job)
 and id not in (select max(id) from runs where outcome in ('done', 'left') group by job)
 and id not in (select max(id) from runs where outcome = 'failed' group by job)
 and not exists (select 1 from actions where actions.run = runs.id and state = 'planned')"""


def _some(table: str, where: str, order: str) -> str:
    return f"delete from {table} where id in (select id from {table} where {where} order by {order} limit {_STEP})"


def trim(db: sqlite3.Connection, statement: str, values: dict[str, float | str]) -> bool:
    """One step, in the caller's transaction; true when there is more to do."""
    return db.execute(statement, values).rowcount == _STEP


MOST_STEPS = _STEPS
"""Steps of one statement at a time: the next call goes on."""
