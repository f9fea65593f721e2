"""What the tests of retention share: files as a walk finds them, and units and rules of any kind."""

from collections.abc import Iterable

from hypothesis import strategies as st

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.retention.plan import Removal
from symbiont_datad.retention.rules import AgeBy, Rule
from symbiont_datad.retention.units import Unit

NOW = 1_795_000_000.0
DAY = 86_400.0


def entry(path: str, age_s: float = 0.0, size: int = 100, read_s: float | None = None) -> Entry:
    """A file that was written `age_s` seconds before NOW and read `read_s` seconds before it."""
    written = int((NOW - age_s) * 1e9)
    return Entry(path, 0o100644, size, written, int((NOW - (age_s if read_s is None else read_s)) * 1e9), 1, 1, 0, 0)


def unit(path: str, age_s: float = 0.0, size: int = 100) -> Unit:
    """A file as a unit."""
    one = entry(path, age_s, size)
    return Unit(path, one.mtime_ns, size, (one,))


def paths(removals: Iterable[Removal]) -> list[str]:
    """What goes, by name."""
    return [removal.unit.path for removal in removals]


PATHS = st.builds(
    lambda folders, name: "/".join([*folders, name]),
    st.lists(st.sampled_from("xyz"), max_size=2),  # no directory has the name of a file
    st.text("abc", min_size=1, max_size=3),
)
ENTRIES = st.lists(
    st.builds(
        entry,
        path=PATHS,
        age_s=st.integers(-10, 100).map(float),
        size=st.integers(0, 50),
        read_s=st.none() | st.integers(-10, 100).map(float),
    ),
    max_size=30,
    unique_by=lambda one: one.path,
)
RULES = st.builds(
    Rule,
    st.just("rule"),
    st.just(""),
    max_age_s=st.none() | st.integers(0, 100).map(float),
    max_bytes=st.none() | st.integers(0, 600),
    max_files=st.none() | st.integers(0, 20),
    age_by=st.sampled_from(AgeBy),
    whole=st.booleans(),
    keep_newest=st.booleans(),
)
