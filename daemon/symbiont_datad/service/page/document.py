"""The page: the same as `status`, with plots, and a search in the events. Pure, but for `answer`.

One document without anything from elsewhere. Its style and its script are named in the policy by their hashes, so
nothing else that might get into it is heeded (w3.org/TR/CSP3). Without the script it is the same page.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs

from symbiont_datad import status_words as words
from symbiont_datad.ledger_events import Filter
from symbiont_datad.ledger_schema import Row
from symbiont_datad.quantities import format_duration, format_size, parse_duration
from symbiont_datad.report import Severity, printable
from symbiont_datad.service.page import plots
from symbiont_datad.service.page.markup import Markup, joined, tag
from symbiont_datad.service.request import Answer
from symbiont_datad.status import Status, collect
from symbiont_datad.status_events import LEVELS, kinds_of, sentence, severity_of
from symbiont_datad.status_history import History, history
from symbiont_datad.status_verdict import Remark, remarks

_SPANS = ("1h", "1d", "7d", "30d", "365d")
_SPAN = "7d"
_EVENTS = 100
_LONGEST = 200
_REMARKS = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody looks for in the events."""

    text: str = ""
    since: str = _SPAN
    severity: Severity = Severity.INFO
    job: str = ""

    def filter(self, now: float) -> Filter:
        """The same for the ledger; `now` in seconds since the epoch."""
        return Filter(
            since=now - parse_duration(self.since),
            serious=None if self.severity is Severity.INFO else kinds_of(self.severity),
            job=self.job or None,
            text=self.text,
            limit=_EVENTS,
        )


def wanted(query: str) -> Wanted:
    """What a query asks for; what it does not say, or says wrongly, is as if nothing was asked."""
    try:
        found = parse_qs(query, errors="replace", max_num_fields=20)
    except ValueError:
        return Wanted()
    first = {key: values[0].strip()[:_LONGEST] for key, values in found.items()}
    severity = first.get("severity", "")
    return Wanted(
        first.get("q", ""),
        first["since"] if first.get("since") in _SPANS else _SPAN,
        Severity(severity) if severity in LEVELS else Severity.INFO,
        first.get("job", ""),
    )


def answer(root: str, daemon_dir: Path, query: str, now: float) -> Answer:
    """The page as the server sends it."""
    asked = wanted(query)
    found = collect(root, daemon_dir)
    past, rows = history(daemon_dir, now, asked.filter(now))
    text = document(found, past, rows, asked, now)
    return Answer(200, text.encode("utf-8", "backslashreplace"), "text/html; charset=utf-8", _fields())


@lru_cache(maxsize=4)
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=1)
def _fields() -> tuple[str, ...]:
    policy = (
        f"default-src 'none'; style-src {_hash(_part('page.css'))}; script-src {_hash(_part('page.js'))}; "
        "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return (
        f"Content-Security-Policy: {policy}",
        "Referrer-Policy: no-referrer",
        "Cross-Origin-Resource-Policy: same-origin",
        "Cross-Origin-Opener-Policy: same-origin",
    )


def document(found: Status, past: History, rows: Sequence[Row], asked: Wanted, now: float) -> str:
    """The whole page; `rows` are the events that pass, the oldest first."""
    every = remarks(found, now)
    body = tag(
        "body",
        tag("a", "Skip to the status", class_="skip", href="#main"),
        tag("header", tag("h1", f"symbiont-datad · {printable(found.root)}"), _verdict(found, every, now)),
        tag(
            "main",
            _section("usage-now", "Usage", _usage(found)),
            _section("usage-then", "Usage over time", _usage_over_time(found, past, now)),
            _section("space-then", "Free space", _space(found, past, now)),
            _section("snapshots-now", "Snapshots", _snapshots(found, now)),
            _section("jobs-now", "Jobs", _jobs(found, past, now), wide=True),
            _section(
                "days-then",
                "Repairs (of contexts, too) and removals",
                plots.days_plot(past, now),
                tag("p", words.today(found)),
            ),
            _section("state-now", "Contexts, guard, quarantine, legacy places", _state(found, now)),
            _events(found, rows, asked, now),
            id="main",
            tabindex="-1",
        ),
        tag(
            "footer",
            tag(
                "p",
                words.versions(found),
                ". Read-only; as of ",
                tag("span", _moment(now), id="as-of", data_live=True),
                ". ",
            ),
            tag("p", tag("button", "Stop refreshing", id="pause", type="button", hidden=True)),
            tag("p", id="told", role="status"),
        ),
        Markup(f"<script>{_part('page.js')}</script>"),
    )
    title = f"{every[0].severity.value}: " if every else "all good: "
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", f"{title}{printable(found.root)}"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="robots", content="noindex"),
        tag("link", rel="icon", href=_icon("#b3261e" if every else "#116b3a")),
        Markup(f"<style>{_part('page.css')}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _icon(color: str) -> str:
    drawn = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='4' fill='{color}'/></svg>"
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"


def _section(name: str, title: str, *content: Markup, wide: bool = False) -> Markup:
    inner = tag("div", *content, id=name, data_live=True)
    return tag("section", tag("h2", title, id=f"{name}-head"), inner, aria_labelledby=f"{name}-head",
               class_="wide" if wide else None)  # fmt: skip


def _verdict(found: Status, every: Sequence[Remark], now: float) -> Markup:
    if not every:
        content = [tag("p", f"All good: {words.kept(found, now)}.", class_="verdict good")]
    else:
        worst = every[0].severity.value
        title = f"{words.counted(len(every), 'thing')} to look at. {words.kept(found, now)}."
        listed = [_remark(one, now) for one in every[:_REMARKS]]
        content = [tag("p", title, class_=f"verdict {worst}"), tag("ul", *listed, class_="remarks")]
        if len(every) > _REMARKS:
            content.append(tag("p", f"… and {len(every) - _REMARKS} more: ", tag("code", "symbiont-datad check")))
    return tag("div", *content, id="verdict", data_live=True)


def _remark(one: Remark, now: float) -> Markup:
    since = f" (since {format_duration(max(now - one.since, 0.0))})" if one.since is not None else ""
    mark = tag("b", one.severity.value, class_=one.severity.value)
    return tag("li", mark, f": {printable(one.text)}{since} → ", tag("code", one.command))


def _table(title: str, heads: Sequence[tuple[str, str]], rows: Sequence[Markup]) -> Markup:
    """A table that is scrolled by itself where it is too wide; `heads` are names and classes of the columns."""
    head = tag("tr", *(tag("th", name, scope="col", class_=kind or None) for name, kind in heads))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=title)


def _usage(found: Status) -> Markup:
    if not found.usage:
        return tag("p", "Nothing was measured yet.", class_="quiet")
    order = plots.categories(found.usage)
    most = max(point.bytes for point in found.usage) or 1
    by_name = {point.category: point for point in found.usage}
    rows = [
        tag(
            "tr",
            tag("th", _key(number), printable(name), scope="row"),
            tag("td", f"{by_name[name].files:,}", class_="number"),
            tag("td", format_size(by_name[name].bytes), class_="number"),
            tag("td", words.growth(found.trends.get(name)), class_="number"),
            tag("td", plots.bar(by_name[name].bytes / most, number)),
        )
        for number, name in enumerate(order)
    ]
    heads = (("category", ""), ("files", "number"), ("size", "number"), ("a day", "number"), ("share", ""))
    return _table("Usage by category", heads, rows)


def _key(number: int) -> Markup:
    box = tag("rect", width=10, height=10, class_=plots.color(number))
    return tag("svg", box, viewBox="0 0 10 10", class_="key", aria_hidden="true")


def _usage_over_time(found: Status, past: History, now: float) -> Markup:
    plot = plots.usage_plot(past.usage, found.trends, now)
    return joined(
        [plot, tag("p", "Dashed: where it leads at the pace of late. Colours as in the table.", class_="quiet")]
    )


def _space(found: Status, past: History, now: float) -> Markup:
    told = [tag("p", words.free(found))] if found.space else []
    told += [tag("p", text, class_="warning") for _, text in words.endings(found)]
    return joined([*told, plots.space_plot(past.space, found.full, now)])


def _snapshots(found: Status, now: float) -> Markup:
    told = [tag("p", text.strip()) for text in words.snapshots(found, now)]
    return joined([*told, plots.snapshots_plot(found.snapshots, now)])


def _jobs(found: Status, past: History, now: float) -> Markup:
    live = found.live if found.daemon_pid is not None else None
    rows = []
    for name, run in sorted(found.runs.items()):
        good, due = found.good_runs.get(name), live.next_runs.get(name) if live else None
        outcome = run.outcome or ("running" if live and name in live.active_jobs else "unfinished")
        failures = found.failures.get(name, 0)
        rows.append(
            tag(
                "tr",
                tag("th", name, scope="row"),
                tag("td", outcome, class_=outcome if outcome == "failed" else None),
                tag("td", words.ago(now, good.started_at) if good else "never", class_="time"),
                tag("td", format_duration(run.ended_at - run.started_at) if run.ended_at else "–", class_="time"),
                tag("td", f"in {format_duration(max(due - now, 0.0))}" if due is not None else "–", class_="time"),
                tag("td", f"{failures:,}" if failures else "–"),
                tag("td", printable(run.message), class_="why"),
            )
        )
    if not rows:
        return tag("p", "No job ran yet.", class_="quiet")
    heads = [(head, "") for head in ("job", "ended", "last success", "took", "next", "failed in a week", "said")]
    legend = "Green: done; orange: something is left; red and tall: failed. Times are UTC."
    return joined([_table("Jobs", heads, rows), plots.jobs_plot(past.runs, now), tag("p", legend, class_="quiet")])


def _state(found: Status, now: float) -> Markup:
    told = [words.contexts(found), words.guard(found)]
    others = sum(not cell.undoable for cell in found.cells)
    if others:
        told.append(f"quarantine: {words.counted(others, 'thing')} moved aside")
    for run, until, files, size in words.undo(found):
        told.append(
            f"clean --undo --run {run} brings back {words.counted(files, 'file')} ({format_size(size)}) "
            f"until {_moment(until)}"
        )
    told += words.cache(found.cache_use)
    places = found.live.legacy if found.live is not None else ()
    told += [f"legacy {one.kind}: {printable(one.path)} ({words.legacy(one, now)})" for one in places]
    healed = [
        f"{row.kind.replace('_', ' ')}: {printable(row.path)} ({words.ago(now, row.at)})" for row in found.healed[:5]
    ]
    return joined(tag("p", one.strip()) for one in [*told, *healed] if one)


def _events(found: Status, rows: Sequence[Row], asked: Wanted, now: float) -> Markup:
    jobs = ("", "guard", *sorted(found.runs))
    form = tag(
        "form",
        tag("label", "text", tag("input", type="search", name="q", value=asked.text, maxlength=str(_LONGEST))),
        tag("label", "since", _select("since", _SPANS, asked.since)),
        tag("label", "at least", _select("severity", [level.value for level in LEVELS], asked.severity.value)),
        tag("label", "job", _select("job", jobs, asked.job, {"": "any"})),
        tag("button", "Search", type="submit"),
        action="/#events-head",
        method="get",
        role="search",
        aria_label="Events",
    )
    shown = tag("p", "Nothing was done.")
    if rows:
        many = len(rows) == _EVENTS
        count = f"The newest {_EVENTS} of them are shown." if many else f"{words.counted(len(rows), 'event')}."
        listed = tag("ol", *(_event(row) for row in reversed(rows)), class_="events")
        shown = joined([tag("p", count, class_="quiet"), listed])
    return tag(
        "section",
        tag("h2", "Events", id="events-head"),
        form,
        tag("div", shown, id="events-now", data_live=True),
        class_="wide",
        aria_labelledby="events-head",
    )


def _event(row: Row) -> Markup:
    at, severity = _moment(row.at), severity_of(row).value
    return tag(
        "li",
        tag("time", at, datetime=at.replace(" ", "T")),
        tag("span", row.job),
        tag("span", severity, class_=severity),
        tag("span", printable(sentence(row)), class_="why"),
    )


def _select(name: str, values: Sequence[str], chosen: str, shown: dict[str, str] | None = None) -> Markup:
    options = [tag("option", (shown or {}).get(one, one), value=one, selected=one == chosen) for one in values]
    return tag("select", *options, name=name)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
