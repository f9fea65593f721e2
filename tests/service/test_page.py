"""The page: well formed, by itself, harmless whatever the names in the tree, and the same truth as `status`."""

import base64
import re
import time
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.ledger_schema import SpacePoint
from symbiont_datad.live import LiveState
from symbiont_datad.report import Severity
from symbiont_datad.service.page import plots
from symbiont_datad.service.page.document import Wanted, _verdict, answer, wanted
from symbiont_datad.service.page.markup import Markup, tag
from symbiont_datad.status import Status, collect
from symbiont_datad.status_verdict import Remark, remarks
from tests.service.looking import EVIL, month

VOID = {"meta", "link", "input", "br"}


@pytest.fixture(scope="module")
def daemon_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A daemon's own directory after a month."""
    path = tmp_path_factory.mktemp("month")
    month(path, time.time())
    return path


class Outline(HTMLParser):
    """What a page consists of; fails where elements do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert [] == self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert name == self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def page(daemon_dir: Path, query: str = "") -> str:
    """The page as text."""
    return answer("/srv/data", daemon_dir, query, time.time()).body.decode()


def test_it_is_one_document_that_needs_nothing_else(daemon_dir: Path) -> None:
    """Well formed; nothing is loaded from elsewhere, no style or handler stands in an attribute, ids are unique."""
    found = Outline(page(daemon_dir))
    attributes = [pair for _, some in found.seen for pair in some.items()]
    assert not [name for name, _ in attributes if name == "style" or name.startswith("on")]
    links = [value or "" for name, value in attributes if name in ("src", "href", "action", "xlink:href")]
    assert not [link for link in links if not link.startswith(("#", "/", "data:")) or link.startswith("//")]
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    labelled = {one for name, value in attributes if name == "aria-labelledby" for one in (value or "").split()}
    assert labelled <= set(ids)


def test_the_policy_names_what_is_in_it(daemon_dir: Path) -> None:
    """The hashes of the style and of the script, and nothing that lets another one in."""
    found = answer("/srv/data", daemon_dir, "", time.time())
    (policy,) = [field for field in found.fields if field.startswith("Content-Security-Policy: ")]
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", found.body.decode(), re.DOTALL)
        assert f"{name}-src 'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_names_are_text_and_nothing_else(daemon_dir: Path) -> None:
    """A path, a message and a search with markup in them show as they are."""
    text = page(daemon_dir, "q=%22%3E%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
    assert "<img" not in text
    found = Outline(page(daemon_dir))
    assert EVIL in found.text
    assert "no space left on <b>device</b>" in found.text
    assert not [name for name, _ in found.seen if name in ("b", "i", "img") and "alert" in name]
    assert 1 == page(daemon_dir).count("<script")


def test_it_says_what_status_says(daemon_dir: Path) -> None:
    """Each remark with its command, the figures of each category, snapshots, jobs."""
    found, now = collect("/srv/data", daemon_dir), time.time()
    text = Outline(page(daemon_dir)).text
    for remark in remarks(found, now):
        assert remark.command in text
        assert remark.text.partition(";")[0].partition(" ago")[0][:20] in text
    for part in (
        "context truncated: state/agents/a<i>.json",
        "logs",
        "snapshots: 21 in 5 GiB",
        "verified 1h",
        "verify",
    ):
        assert part in text
    assert re.search(r"full in \d+ days at the rate of the last", text)


def test_the_plots_are_images_with_words(daemon_dir: Path) -> None:
    """Each is well-formed SVG, and says what it shows; nothing is drawn outside of it."""
    drawn = re.findall(r"<svg.*?</svg>", page(daemon_dir), re.DOTALL)
    images = [ET.fromstring(one) for one in drawn]  # noqa: S314  # ours
    plots = [one for one in images if one.get("role") == "img"]
    assert 5 == len(plots)
    for plot in plots:
        width, height = (float(size) for size in (plot.get("viewBox") or "").split()[2:])
        assert plot.findtext("title")
        assert plot.findtext("desc")
        for one in plot.iter():
            for name, most in (
                ("x", width),
                ("cx", width),
                ("x2", width),
                ("y", height),
                ("cy", height),
                ("y2", height),
            ):
                assert 0 <= float(one.get(name) or 0) <= most
            for point in (one.get("points") or "").split():
                x, y = point.split(",")
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height


def test_before_the_first_start_it_says_so(tmp_path: Path) -> None:
    """Nothing is there, nothing is made, and the page is whole."""
    text = Outline(page(tmp_path / "datad")).text
    assert "no daemon keeps /srv/data" in text
    assert "There is no snapshot yet." in text
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Wanted()),
        ("q=a+b&since=1d&severity=error&job=sweep", Wanted("a b", "1d", Severity.ERROR, "sweep")),
        ("q=%ff%00&since=now&severity=worst", Wanted("\ufffd\x00", "7d", Severity.INFO, "")),
        ("&".join("a=1" for _ in range(50)), Wanted()),
        ("q=" + "x" * 1000, Wanted("x" * 200)),
    ],
)
def test_queries(query: str, expected: Wanted) -> None:
    """What is not understood is as if it was not asked for."""
    assert expected == wanted(query)


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_any_query_is_a_filter(query: str) -> None:
    """Nobody can ask for what can't be looked up."""
    assert 100 == wanted(query).filter(1e9).limit


def test_the_events_are_searched(daemon_dir: Path) -> None:
    """By text and severity; the fields keep what was asked for."""
    assert "recreated directory state" not in Outline(page(daemon_dir, "q=cache")).text
    found = Outline(page(daemon_dir, "q=had+gone&since=30d&severity=warning"))
    assert "recreated directory state: it had gone" in found.text
    (field,) = [some for name, some in found.seen if name == "input"]
    assert "had gone" == field["value"]
    assert {"30d", "warning", ""} == {
        some["value"] for name, some in found.seen if name == "option" and "selected" in some
    }


def test_markup_escapes_what_is_text() -> None:
    """In content and in attributes; what is markup already stays."""
    assert '<p title="&quot;&lt;">&lt;a&gt; &amp; <b>1</b></p>' == tag("p", "<a> & ", tag("b", 1), None, title='"<')
    assert '<input checked data-a="1.5">' == tag("input", checked=True, hidden=False, data_a=1.5)
    assert isinstance(tag("p"), Markup)


def test_when_all_is_good_it_says_so() -> None:
    """In a word, with for how long; of very many things the worst are shown, and how many more there are."""
    now = 100_000.0
    live = LiveState(7, now - 5000, now - 10, True, True, every_s=40.0, version="1")
    good = Status("/srv/data", 7, live, (), None, {}, {}, (), version="1")
    assert "All good: " in str(_verdict(good, [], now))
    many = [Remark(Severity.WARNING, f"thing {number}", "symbiont-datad check") for number in range(25)]
    text = str(_verdict(good, many, now))
    assert [True, True, True, False] == [
        part in text for part in ("25 things to look at", "… and 5 more: ", "thing 19", "thing 20")
    ]


def test_plots_of_nothing_say_so() -> None:
    """And a disk that does not fill up has no line ahead."""
    assert "No job ran in the last day." in str(plots.jobs_plot([], 100_000.0))
    assert "Not enough was measured yet." in str(plots.space_plot([], None, 100_000.0))
    points = [SpacePoint(float(at), 1000 - at // 1000, 2000, 5, 10) for at in range(0, 90_000, 10_000)]
    drawn = str(plots.space_plot(points, None, 100_000.0))
    assert [True, False, False] == [part in drawn for part in ("are free now", "ahead", "at the pace of late")]
