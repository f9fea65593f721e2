"""Random cuts, flips and fills of contexts: never a crash, never a false heal, never a lost byte."""

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.formats.context import REQUIRED
from symbiont_datad.formats.state_name import backup_name, context_name
from symbiont_datad.report import Outcome
from tests import contexts
from tests.jobs.making import DAY, NOW, settings_for, write
from tests.jobs.test_heal import files, quarantined, sweep

EXAMPLES = int(os.environ.get("DATAD_DAMAGES", "40"))
"""So many damages are tried in each mode. DATAD_DAMAGES=5000 is for a while."""

Damage = Callable[[bytes], bytes]


def cut(at: float) -> Damage:
    """All from some point on is gone."""
    return lambda data: data[: int(at * len(data))]


def flip(at: float, mask: int) -> Damage:
    """Some bits of one byte are others."""

    def flipped(data: bytes) -> bytes:
        place = min(int(at * len(data)), len(data) - 1)
        return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :] if data else data

    return flipped


def fill(begin: float, end: float, byte: int) -> Damage:
    """A stretch of it is one byte, over and over."""

    def filled(data: bytes) -> bytes:
        first, last = sorted((int(begin * len(data)), int(end * len(data))))
        return data[:first] + bytes([byte]) * (last - first) + data[last:]

    return filled


def add(tail: bytes) -> Damage:
    """Something follows it."""
    return lambda data: data + tail


PLACE = st.floats(0, 1)
DAMAGES = st.lists(
    st.builds(cut, PLACE) | st.builds(flip, PLACE, st.integers(1, 255))
    | st.builds(fill, PLACE, PLACE, st.sampled_from([0, 0x20, 0xFF, 0x41])) | st.builds(add, st.binary(max_size=20)),
    min_size=1,
    max_size=3,
)  # fmt: skip


def text_in(data: bytes, *, zipped: bool) -> bytes | None:
    """What a file holds, as another reader of gzip finds it; None when it can't be read."""
    if not zipped:
        return data
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(data)
    except zlib.error:
        return None
    return text if stream.eof else None


def is_context(text: bytes | None) -> bool:
    """Whether a text is a context, as far as Python's own JSON and the names of the outer fields tell."""
    try:
        value: Any = json.loads(text.decode()) if text is not None else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(REQUIRED) <= value.keys()


def check(damages: list[Damage], *, zipped: bool, with_backup: bool) -> None:
    """Damage a context, sweep, and look at every file."""
    with tempfile.TemporaryDirectory(prefix="datad-") as folder:
        given_settings = settings_for(Path(folder))
        agents = Path(given_settings.layout.root, "state/agents")
        agent = contexts.agent_id("agent")
        value, older = contexts.context("agent"), contexts.context("agent", text="older")
        encode = contexts.zipped if zipped else contexts.plain
        whole, broken = encode(value), encode(value)
        for damage in damages:
            broken = damage(broken)
        path = write(agents / context_name(agent, gzip=zipped), broken)
        for number in range(3):  # so that the mode is known whatever this one becomes
            name = f"well {number}"
            write(agents / context_name(contexts.agent_id(name), gzip=zipped), encode(contexts.context(name)))
        backup = agents / backup_name(agent, int(NOW - 2 * DAY), gzip=zipped)
        if with_backup:
            write(backup, encode(older), age_s=2 * DAY)
        before = files(given_settings)
        ran = sweep(given_settings)
        assert ran.report.outcome in (Outcome.DONE, Outcome.LEFT)
        after = files(given_settings)
        relative = str(path.relative_to(given_settings.layout.root))
        assert {key: kept for key, kept in before.items() if key != relative} == {
            key: kept for key, kept in after.items() if key != relative
        }
        now, aside = after[relative][0], quarantined(given_settings)
        text = text_in(broken, zipped=zipped)
        if now == broken:
            assert {} == aside
            # Left alone: it is a context, or nothing good was found, or nobody can tell.
            assert is_context(text) or not with_backup
        else:
            assert {relative: broken} == aside  # not a byte is lost
            assert encode(older) == now
            assert with_backup
            assert broken != whole
            assert not is_strictly_whole(text, value)


def is_strictly_whole(text: bytes | None, value: dict[str, Any]) -> bool:
    """Whether a text still says exactly what it said: then nothing was there to heal."""
    try:
        return text is not None and bool(json.loads(text.decode()) == value)
    except (ValueError, RecursionError):
        return False


@settings(max_examples=EXAMPLES)
@given(DAMAGES, st.booleans())
def test_damaged_gzip_is_healed_or_left(damages: list[Damage], with_backup: bool) -> None:
    """What can't be read is replaced by the backup and kept; what can be read is left alone."""
    check(damages, zipped=True, with_backup=with_backup)


@settings(max_examples=EXAMPLES)
@given(DAMAGES, st.booleans())
def test_damaged_json_is_healed_or_left(damages: list[Damage], with_backup: bool) -> None:
    """The same for plain JSON, in which a flip may make another context of it."""
    check(damages, zipped=False, with_backup=with_backup)


def test_the_oracle_knows_a_context() -> None:
    """What the tests above go by tells a whole context from a broken one."""
    value = contexts.context("agent")
    assert is_context(text_in(contexts.zipped(value), zipped=True))
    assert not is_context(text_in(contexts.zipped(value)[:-9], zipped=True))
    assert not is_context(contexts.plain(value)[:-2])
    assert gzip.decompress(contexts.zipped(value)) == contexts.plain(value)
