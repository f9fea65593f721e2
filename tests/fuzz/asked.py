"""Targets: what is asked of the ledger, and what is shown of names and texts that others chose."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest import mock

from prometheus_client.parser import text_string_to_metric_families

from symbiont_datad.cli.events import point_in_time
from symbiont_datad.doctor import bundle, journal
from symbiont_datad.doctor.scrub import SECRET, scrub_for
from symbiont_datad.errors import SettingsError
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_events import Filter
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity
from symbiont_datad.service.exposition import rendered
from symbiont_datad.service.metrics import METRICS
from symbiont_datad.service.page import document
from tests.fuzz.engine import Target
from tests.fuzz.pieces import JSON, scratch

_NOW = 1.8e9


class _Balance(HTMLParser):
    """That every element is closed, in order, and that none came in which the page does not have."""

    _VOID = ("br", "hr", "img", "input", "link", "meta")

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        assert tag not in ("zz", "iframe", "base", "object")
        assert all(not name.startswith("on") for name, _ in attrs)
        if tag not in self._VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def _page(data: bytes) -> None:
    """The query of a page on the first line; on the others what stands in the ledger."""
    query, _, rest = data.replace(b"\0", b"").partition(b"\n")
    texts = rest.decode("utf-8", "surrogateescape").split("\n")
    kind, path, reason, message, root = [*texts, *[""] * 5][:5]
    kind = "".join(filter(str.isalpha, kind)) or "file_removed"
    with scratch() as folder:
        daemon = folder / "datad"
        with Ledger(daemon / "ledger.db") as ledger:
            run = ledger.begin_run("clean", _NOW)
            ledger.finish_run(run, JobReport("clean", Outcome.FAILED, _NOW, 1.0, counts={"a": 1}, message=message))
            ledger.record([Action(kind, path, "rule", reason, 5)], _NOW, run)
            ledger.replace_findings("clean", [Finding(kind, path, Severity.ERROR, reason, message)], _NOW)
        answer = document.answer(f"{folder}/{root}", daemon, query.decode("ascii", "replace"), _NOW + 5)
    page = _Balance()
    page.feed(answer.body.decode("utf-8"))
    page.close()
    assert not page.opened
    assert page.scripts == 1
    assert not any("\r" in field or "\n" in field for field in answer.fields)


def _events(data: bytes) -> None:
    """The options of `events`, a line each."""
    since, path, text, job, *kinds = [
        *data.decode("utf-8", "surrogateescape").replace("\0", "").split("\n"),
        "",
        "",
        "",
    ]
    with scratch() as folder, Ledger(folder / "ledger.db") as ledger:
        ledger.record([Action("file_removed", "logs/a.log", "cache", "100%_", 5)], _NOW)
        for covering in ((), ("directory_removed",)):
            wanted = Filter(path=path, text=text, kinds=kinds[:50], job=job or None, covering=covering, limit=5)
            ledger.events(wanted)
            ledger.new_actions(wanted)
        assert len(ledger.events(Filter(text=text))) in (0, 1)
        found = ledger.events(Filter(since=point_in_time(since, "--since")))
        assert len(found) in (0, 1)


def _labels(data: bytes) -> None:
    """Labels of metrics; a reader of Prometheus' format gets them back."""
    values = data.decode("utf-8", "replace").split("\0")[:8]
    metric = next(one for one in METRICS.values() if len(one.labels) == 1 and not one.is_counter)
    text = rendered([(metric.name, (value,), float(n)) for n, value in enumerate(values)], values[0])
    samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
    assert values == [sample.labels[metric.labels[0]] for sample in samples]


def _bundle(data: bytes) -> None:
    """A text for the bundle: the first line is a secret, the second a name, the rest the text."""
    secret, name, text = [*data.decode("utf-8", "surrogateescape").split("\n", 2), "", ""][:3]
    scrub = scrub_for(b"k" * 16, [secret], [name], {"logs", "sweep"}, {"/home/ada": "~"})
    scrub.path(text)
    shown = scrub.text(text)
    scrub.value({"a": [text, {"b": text}]})
    made = re.search(r"^[0-9a-f]|[\[\]~@]", secret)  # what is put in may look like it, with what follows
    if len(secret) >= 4 and secret not in SECRET and not made:
        assert not any(secret in part for part in shown.split(SECRET))
    assert "AGE-SECRET-KEY-1Q" not in shown


def _journal(data: bytes) -> None:
    """Lines as journalctl prints them, and how they come into the bundle."""
    done = SimpleNamespace(stdout=data.decode("utf-8", "replace"))
    scrub = scrub_for(b"k" * 16, ["hunter22"], ["ada"], (), {})
    with (
        mock.patch("shutil.which", return_value="journalctl"),
        mock.patch("subprocess.run", return_value=done),
    ):
        for one in journal.last_lines(5):
            bundle._json(bundle._line(one, scrub))


TARGETS = (
    Target(
        "page", _page,
        lambda: [
            b"q=a&since=1d&severity=error&job=sweep\nfile_removed\nlogs/<zz>.log\nold & \"quoted\"\nfailed: 'x'\ndata",
            b"q=%3Czz%3E\njob_failed\n\xff\xfe/\xe2\x80\xae.json\n</script>\n-->",
        ],
        (),
        (
            b"<zz>", b"<zz onload=1>", b'"', b"'", b"&lt;", b"</script>", b"<!--", b"]]>", b"q=", b"&job=", b"%00",
            b"since=7d",
        ),
    ),
    Target(
        "events-query", _events,
        lambda: [b"1d\nlogs/a.log\n100%\nguard\nfile_removed", b"2026-11-23T04:00Z\n./logs\n_\\%\n\njob_failed\nx"],
        (SettingsError,),
        (b"\n", b"%", b"_", b"\\", b"'", b"--", b"0001-01-01", b"9999-12-31T23:59:59+00:00", b"1e300y", b"w", b"/"),
    ),
    Target(
        "metrics-labels", _labels, lambda: [b'a\0b"\\\n', "é\0".encode()], (),
        (b'"', b"\\", b"\n", b"\\n", b"}", b"{", b","),
    ),
    Target(
        "bundle-text", _bundle,
        lambda: [
            b"hunter22\nada lovelace\nada lovelace wrote hunter22 to /home/ada/.symbiont; https://me:hunter22@host/x",
            b"p4ss word!\nagent-7\nagents/0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11.json.gz AGE-SECRET-KEY-1QXY agent-7.gz",
        ],
        (), (b"AGE-SECRET-KEY-1QQ", b"://", b"@", b".json.gz", b"-0001", b"[secret]", b"~", b"/", b"\n"),
    ),
    Target(
        "journal-lines", _journal,
        lambda: [
            b'{"__REALTIME_TIMESTAMP":"17","PRIORITY":"6","MESSAGE":"hunter22","SYMBIONT_PATH":"logs/ada.log"}\n[1]\n"a"',
            b'{"MESSAGE":[104,105],"SYMBIONT_PATH":["a","b"],"SYMBIONT_ERROR":null}\n',
        ],
        (), (*JSON, b'"SYMBIONT_', b'"MESSAGE":', b"\n"),
    ),
)  # fmt: skip
