"""The plan of a migration, decided from facts alone."""

import os
from pathlib import Path
from random import Random
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.migrate.content import Question, of_data
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.plan import CONTESTED, Questions, counted, plan, questions
from symbiont_datad.migrate.planning import Plan, There
from symbiont_datad.migrate.records import Deed, File, Identity, Known, Place, Step
from symbiont_datad.migrate.target import Target
from symbiont_datad.report import Severity
from tests import contexts
from tests.migrate.making import NOW, context
from tests.migrate.plans import AGENTS, OLD, PLAIN, TARGET, A, B, Files, Tree, at, entry, planned, steps, told

# Contexts


@pytest.mark.parametrize(
    ("target", "zipped", "name", "encoding"),
    [
        (TARGET, False, f"{A}.json.gz", Encoding.GZIP),
        (TARGET, True, f"{A}.json.gz", Encoding.AS_IS),
        (PLAIN, True, f"{A}.json", Encoding.PLAIN),
        (PLAIN, False, f"{A}.json", Encoding.AS_IS),
    ],
)
def test_a_context_comes_in_the_mode_in_force(target: Target, zipped: bool, name: str, encoding: Encoding) -> None:
    """The runtime lists a context of the other mode, and never loads it."""
    source = {f"{A}.json{'.gz' if zipped else ''}": (context(zipped=zipped), at(5))}
    (step,) = planned(source, target=target).steps
    assert (Deed.BRING, Place(False, f"{AGENTS}/{name}"), encoding) == (step.deed, step.to, step.encoding)


def test_what_a_context_is_counts_not_what_it_is_called() -> None:
    """One that is gzip in a file named .json comes as it is, under the right name."""
    (step,) = planned({f"{A}.json": (context(zipped=True), at(5))}).steps
    assert (f"{AGENTS}/{A}.json.gz", Encoding.AS_IS) == (step.to.path, step.encoding)


def test_the_same_content_is_not_brought_again() -> None:
    """Whatever the times and modes of the two are."""
    tree = {f"{AGENTS}/{A}.json.gz": (context(zipped=True), at(1))}
    assert {f"{A}.json": ("same", f"{AGENTS}/{A}.json.gz", "")} == steps(
        planned({f"{A}.json": (context(), at(5))}, tree)
    )


@pytest.mark.parametrize("told", [True, False])
def test_the_newer_of_two_contexts_is_live(told: bool) -> None:
    """The older one is a backup with its own time. What a context tells of its last change comes before mtime."""

    def one(text: str, hours: float) -> tuple[bytes, float]:
        return (context(text, at(hours)), at(99)) if told else (context(text), at(hours))

    def two(text: str, hours: float) -> tuple[bytes, float]:
        return (context(text, at(hours), zipped=True), at(50)) if told else (context(text, zipped=True), at(hours))

    older = steps(planned({f"{A}.json": one("legacy", 5)}, {f"{AGENTS}/{A}.json.gz": two("tree", 1)}))
    assert {f"{A}.json": ("bring", f"{AGENTS}/{A}.backup.{int(at(5))}.json", "")} == older
    newer = planned({f"{A}.json": one("legacy", 1)}, {f"{AGENTS}/{A}.json.gz": two("tree", 5)})
    moved = f"{AGENTS}/{A}.json.backup.{int(at(5))}.json"
    assert {f"{A}.json": ("bring", f"{AGENTS}/{A}.json.gz", moved)} == steps(newer)
    assert ["legacy_conflict"] == [finding.kind for finding in newer.findings]


def test_two_modes_of_one_agent_are_a_conflict_as_well() -> None:
    """The newer one is live, the older one a backup; where both say the same, one is enough."""
    source = {f"{A}.json": (context("new", at(1)), at(1)), f"{A}.json.gz": (context("old", at(9), zipped=True), at(9))}
    assert {
        f"{A}.json": ("bring", f"{AGENTS}/{A}.json.gz", ""),
        f"{A}.json.gz": ("bring", f"{AGENTS}/{A}.json.backup.{int(at(9))}.json", ""),
    } == steps(planned(source))
    same = {f"{A}.json": (context(), at(1)), f"{A}.json.gz": (context(zipped=True), at(9))}
    assert ["bring", "same"] == sorted(deed for deed, _, _ in steps(planned(same)).values())


def test_a_damaged_context_of_the_tree_gives_way() -> None:
    """It goes to quarantine, however new it is, because it would keep the runtime from starting."""
    tree = {f"{AGENTS}/{A}.json.gz": (b"", at(0.1))}
    found = planned({f"{A}.json": (context(), at(5))}, tree)
    assert {f"{A}.json": ("bring", f"{AGENTS}/{A}.json.gz", f"aside:tree/{AGENTS}/{A}.json.gz")} == steps(found)


def test_a_context_of_the_tree_in_the_other_mode_gives_way() -> None:
    """It would not load under its name. Where it is the newer one, it is kept as a backup, and told of."""
    tree = {f"{AGENTS}/{A}.json.gz": (context("tree", at(1)), at(1))}
    found = planned({f"{A}.json": (context("legacy", at(5)), at(5))}, tree)
    moved = f"{AGENTS}/{A}.backup.{int(at(1))}.json"
    assert {f"{A}.json": ("bring", f"{AGENTS}/{A}.json.gz", moved)} == steps(found)
    same = {f"{AGENTS}/{A}.json.gz": (context("one"), at(1))}
    aside = f"aside:tree/{AGENTS}/{A}.json.gz"
    assert {f"{A}.json": ("bring", f"{AGENTS}/{A}.json.gz", aside)} == steps(
        planned({f"{A}.json": (context("one"), at(5))}, same)
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "legacy_empty"),
        (context()[:50], "legacy_truncated"),
        (b"\x00\xff<html>", "legacy_not_json"),
        (bytes(500), "legacy_nul_filled"),
        (b'{"agent_id": "x"}', "legacy_missing_fields"),
        (b'{"agent_id": 1}', "legacy_wrong_type"),
        (context(zipped=True)[:60], "legacy_truncated"),
    ],
)
def test_what_would_not_load_is_set_aside(content: bytes, kind: str) -> None:
    """And told of. The tree's own is left as it is."""
    tree = {f"{AGENTS}/{A}.json.gz": (context("tree", zipped=True), at(9))}
    found = planned({f"{A}.json": (content, at(5))}, tree)
    assert {f"{A}.json": ("set aside", f"aside:contexts/{A}.json", "")} == steps(found)
    assert [(kind, f"{OLD}/{A}.json", Severity.WARNING)] == [(f.kind, f.path, f.severity) for f in found.findings]


def test_what_another_version_wrote_comes_and_is_told_of() -> None:
    """A context with a memory of a kind that 1.19.0 does not know is whole: it comes, and one finding tells of all."""
    other = contexts.context()
    other["memory"]["short_term"][0]["memory_type"] = "Dreamt"
    found = planned({f"{one}.json": (contexts.plain(other), at(5)) for one in (A, B)})
    assert {"bring"} == {deed for deed, _, _ in steps(found).values()}
    (told,) = found.findings
    assert ("legacy_doubtful", f"{OLD}/{A}.json", Severity.WARNING) == (told.kind, told.path, told.severity)
    assert told.detail.endswith("; and 1 more like it")


def test_what_was_written_just_now_may_be_half_written() -> None:
    """It is looked at again, and not taken for damaged. Times in the future don't wait for ever."""
    assert "wait" == steps(planned({f"{A}.json": (b"{", NOW - 0.5)}))[f"{A}.json"][0]
    assert "set aside" == steps(planned({f"{A}.json": (b"{", NOW + 99)}))[f"{A}.json"][0]


def test_json_that_is_no_agents_is_no_damaged_context() -> None:
    """The runtime doesn't look at it, and neither is anything missing in it."""
    assert {"index.json": ("bring", f"{AGENTS}/index.json", "")} == steps(planned({"index.json": (b'{"a": 1}', at(5))}))


def test_what_would_be_lost_by_converting_is_kept() -> None:
    """Bytes behind the gzip member are in a copy in quarantine."""
    found = planned({f"{A}.json.gz": (context(zipped=True) + b"more", at(5))}, target=PLAIN)
    assert [("set aside", Encoding.AS_IS), ("bring", Encoding.PLAIN)] == [
        (s.deed.value, s.encoding) for s in found.steps
    ]


# Backups and archives


def test_backups_keep_their_names_and_only_the_newest_come_live() -> None:
    """`backup_count` of them, with those that the tree has; the others are set aside, not lost."""
    source = {f"{A}.json": (context("live"), at(1))}
    source |= {f"{A}.backup.{NOW - n}.json": (context(str(n)), NOW - n) for n in (100, 200, 300, 400)}
    tree = {f"{AGENTS}/{A}.json.backup.{NOW - 150}.json": (context("t", zipped=True), NOW - 150)}
    found = steps(planned(source, tree))
    assert {100: "bring", 200: "bring", 300: "set aside", 400: "set aside"} == {
        n: found[f"{A}.backup.{NOW - n}.json"][0] for n in (100, 200, 300, 400)
    }
    assert f"{AGENTS}/{A}.backup.{NOW - 100}.json" == found[f"{A}.backup.{NOW - 100}.json"][1]


def test_the_last_good_backup_of_an_agent_comes_however_old_it_is() -> None:
    """Where no context is whole, nothing that could take its place is surplus only because of its age."""
    source = {f"{A}.json": (b"", at(1)), f"{A}.backup.{NOW - 400}.json": (context(), NOW - 400)}
    tree = {f"{AGENTS}/{A}.json.backup.{NOW - n}.json": (b"", float(NOW - n)) for n in (10, 20, 30)}
    assert "bring" == steps(planned(source, tree))[f"{A}.backup.{NOW - 400}.json"][0]


def test_backups_that_came_before_are_good_ones() -> None:
    """Those of a run that was cut off: what it would have set aside is set aside now."""
    tree = {f"{AGENTS}/{A}.backup.{NOW - n}.json": (context(str(n)), NOW - n) for n in (100, 200, 300)}
    known = {
        os.path.basename(path): Known(
            os.path.basename(path), Identity(1, 1, 1), "bring", Place(False, path), b"", Identity.of(standing)
        )
        for path, standing in Tree(tree).entries.items()
    }
    name = f"{A}.backup.{NOW - 400}.json"
    source = {name: (context("400"), float(NOW - 400))}
    assert "set aside" == steps(planned(source, tree, known=known))[name][0]
    assert "bring" == steps(planned(source, tree))[name][0]  # whoever made those: they may all be broken


def test_another_backup_of_the_same_second_gets_the_next() -> None:
    """Both are kept; the same one is not brought twice."""
    name = f"{A}.backup.{NOW - 100}.json"
    source = {f"{A}.json": (context(), at(1)), name: (context("legacy"), NOW - 100)}
    tree = {f"{AGENTS}/{name}": (context("tree"), float(NOW - 100))}
    assert ("bring", f"{AGENTS}/{A}.backup.{NOW - 99}.json", "") == steps(planned(source, tree))[name]
    same = {f"{AGENTS}/{name}": (context("legacy"), float(NOW))}
    assert ("same", f"{AGENTS}/{name}", "") == steps(planned(source, same))[name]


def test_archives_come_as_they_are() -> None:
    """Whatever their extension says. Another one of that second gets the next; what was cut off is set aside."""
    source = {
        f"archives/{A}/archive_77.json": (context(zipped=True), at(9)),
        f"archives/{B}/archive_78.json": (b"[]", at(9)),
        f"archives/{B}/archive_79.tmp": (b"{", at(9)),
        f"archives/{B}/archive_80.json": (b"{", at(9)),
    }
    tree = {f"{AGENTS}/archives/{B}/archive_78.json": (b"{}", at(9))}
    assert {
        f"archives/{A}/archive_77.json": ("bring", f"{AGENTS}/archives/{A}/archive_77.json", ""),
        f"archives/{B}/archive_78.json": ("bring", f"{AGENTS}/archives/{B}/archive_79.json", ""),
        f"archives/{B}/archive_79.tmp": ("set aside", f"aside:contexts/archives/{B}/archive_79.tmp", ""),
        f"archives/{B}/archive_80.json": ("set aside", f"aside:contexts/archives/{B}/archive_80.json", ""),
    } == steps(planned(source, tree))


def test_contexts_in_a_backup_directory_become_backups() -> None:
    """They are copies of old, and never take the place of what is live; other files keep their names."""
    source = {f"{A}.json": (context("copy", at(9)), at(9)), "dump/all.tar": (b"tar", at(9))}
    assert {
        f"{A}.json": ("bring", f"{AGENTS}/{A}.backup.{int(at(9))}.json", ""),
        "dump/all.tar": ("bring", "state/backups/dump/all.tar", ""),
    } == steps(planned(source, kind=Kind.BACKUPS))


# What never moves


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("schemapin_keys.json", b"{}"),
        ("agentpin_keys.json", b"{}"),
        (".env", b"TOKEN=x"),
        ("deploy.pem", b"x"),
        ("sub/id_ed25519", b"x"),
        ("credentials.toml", b"x"),
        ("keys/agent", b"x"),
        ("notes.txt", b"-----BEGIN OPENSSH PRIVATE KEY-----\nx"),
        ("identity", b"# created: 2026\nAGE-SECRET-KEY-1QQQ"),
    ],
)
def test_keys_and_credentials_never_move(name: str, content: bytes) -> None:
    """By their names, or by what is in them; they are named, and stay where they are."""
    found = planned({name: (content, at(9))})
    assert {name: ("leave", "", "")} == steps(found)
    assert ["legacy_key"] == [finding.kind for finding in found.findings]


def test_what_can_not_be_copied_is_left_with_a_word() -> None:
    """A link is not followed, a FIFO not opened, and what this user may not read is named."""
    entries = [entry("fifo", b"", at(1), mode=0o010644), entry("link", b"", at(1), mode=0o120777)]
    files = [*map(File, entries), File(entry("shut", b"", at(1)), None, "Permission denied")]
    found = plan(Source(OLD, Kind.CONTEXTS), files, TARGET, Tree({}).there, {}, NOW)
    assert [
        "leave fifo ->  [legacy_special] no regular file",
        "leave link ->  [legacy_link] a symbolic link: it is not followed",
        "leave shut ->  [legacy_unread] Permission denied",
        f"info legacy_special {OLD}/fifo: no regular file (nothing can be copied of it)",
        f"info legacy_link {OLD}/link: a symbolic link: it is not followed (what it leads to may be given with --from)",
        f"warning legacy_unread {OLD}/shut: Permission denied (let this user read it; run it again)",
    ] == told(found)


# What has to be looked into


def asked(source: Files, tree: Files = MappingProxyType({}), kind: Kind = Kind.CONTEXTS) -> dict[str, str]:
    """What is asked about each file of the source, and (after a `+`) of the tree, by the first letters."""
    there = Tree(tree).there
    found = questions(Source(OLD, kind), [entry(path, *one) for path, one in source.items()], TARGET, there)

    def shown(one: Question) -> str:
        return " ".join(name for name, wanted in zip(one._fields, one, strict=True) if wanted) or "key"

    ours = {path: shown(one) for path, one in found.source.items()}
    return ours | {f"+{path}": shown(one) for path, one in found.tree.items()}


ALL = "judged fields compared"


def test_only_what_meets_something_is_compared() -> None:
    """A context alone is judged; of other files it matters whether they hold a key, and large ones hold none."""
    body, large, larger = (b"x", at(1)), (bytes(1 << 16), at(1)), (bytes((1 << 16) + 1), at(1))
    source = {f"{A}.json": body, "notes": large, "dump": larger, f"{B}.json.tmp": body, "x.key": body}
    source |= {f"archives/{A}/archive_5.json": body, f"{A}.backup.5.json": body}
    archive, backup = f"archives/{A}/archive_5.json", f"{A}.backup.5.json"
    alone = {f"{A}.json": "judged fields", "notes": "key", f"{B}.json.tmp": "key"}
    assert alone | {archive: "judged", backup: "judged fields"} == asked(source)
    tree = {f"{AGENTS}/{name}": body for name in ("notes", "dump", archive, backup)} | {f"{AGENTS}/{A}.json.gz": body}
    met = {f"{A}.json": ALL, "notes": "compared", "dump": "compared", f"{B}.json.tmp": "key"}
    met |= {archive: "judged compared", backup: ALL}
    assert met | {f"+{path}": ALL for path in tree} == asked(source, tree)


def test_two_contexts_of_one_agent_are_compared_with_each_other() -> None:
    """In a directory of backups each is, for it becomes a backup among others."""
    two = {f"{A}.json": (b"x", at(1)), f"{B}.json": (b"x", at(1)), f"{A}.json.gz": (b"x", at(1))}
    assert {f"{A}.json": ALL, f"{B}.json": "judged fields", f"{A}.json.gz": ALL} == asked(two)
    assert {f"{A}.json": ALL, f"{B}.json": ALL, f"{A}.json.gz": ALL} == asked(two, kind=Kind.BACKUPS)


def test_where_files_would_meet() -> None:
    """Logs meet logs, whatever they are called, and files of a directory of backups those that came before."""
    logs = {f"{A}.json": (b"x", at(1)), "link": (b"x", at(1))}
    there = {f"logs/system/{A}.json": (b"x", at(1)), f"{AGENTS}/{A}.json.gz": (b"x", at(1))}
    found = {f"{A}.json": "compared", "link": "key", f"+logs/system/{A}.json": ALL}
    assert found == asked(logs, there, Kind.LOGS)
    others = {"all.tar": (b"x", at(1)), "b.tar": (b"x", at(1)), f"{A}.backup.5.json": (b"x", at(1))}
    there = {"state/backups/all.tar": (b"x", at(1)), f"{AGENTS}/b.tar": (b"x", at(1))}
    found = {
        "all.tar": "compared",
        "b.tar": "key",
        f"{A}.backup.5.json": "judged fields",
        "+state/backups/all.tar": ALL,
    }
    assert found == asked(others, there, Kind.BACKUPS)


def test_of_vectors_only_those_of_one_name_are_compared() -> None:
    """They may be large. Keys among them stay unread, and links as well."""
    source = {f"{unit}/{name}": (b"x", at(1)) for unit in "abc" for name in ("1", "2", "x.key")}
    tree = {f"vector_db/collections/{path}": (b"x", at(1)) for path in ("a/1", "a/7", "b/9", "d/1")}
    ours = {f"{unit}/{name}": "compared" for unit in "ab" for name in "12"}
    theirs = {f"+vector_db/collections/{path}": "compared" for path in ("a/1", "a/7", "b/9")}
    assert ours | theirs == asked(source, tree, Kind.VECTORS)


def test_what_is_no_file_is_not_looked_into() -> None:
    """Not in the source, and not in the tree."""
    entries = [entry("a/1", b"", at(1), mode=0o120777), entry(f"{A}.json", b"", at(1), mode=0o010644)]
    link = entry("vector_db/collections/a/1", b"", at(1), mode=0o120777)
    below = There(lambda _: None, lambda _: None, lambda _: None, lambda _: [], lambda _: [link])
    for kind in Kind:
        assert Questions({}, {}) == questions(Source(OLD, kind), entries, TARGET, below)


# Logs and vectors


def test_the_newer_log_has_the_name() -> None:
    """The older one is called like a rotated one."""
    place = "logs/system/model_io.encrypted.log"
    source = {"model_io.encrypted.log": (b"legacy\n", at(1))}
    newer = steps(planned(source, {place: (b"tree\n", at(5))}, kind=Kind.LOGS))
    (deed, to, moved), *_ = newer.values()
    assert ("bring", place, True) == (deed, to, moved.startswith(f"{place}.20"))
    (deed, to, moved), *_ = steps(planned(source, {place: (b"tree\n", at(0))}, kind=Kind.LOGS)).values()
    assert ("bring", True, "") == (deed, to.startswith(f"{place}.20"), moved)


DATASET = {
    "symbiont_context.lance/_versions/1.manifest": (b"m", at(5)),
    "symbiont_context.lance/data/a.lance": (b"data", at(5)),
}


def test_the_data_of_a_dataset_comes_before_its_versions() -> None:
    """A version that is there without its data could not be read."""
    found = planned(DATASET, kind=Kind.VECTORS)
    assert ["data/a.lance", "_versions/1.manifest"] == [s.to.path.split(".lance/", 1)[1] for s in found.steps]
    assert "vector_db/collections/symbiont_context.lance/data/a.lance" == found.steps[0].to.path


def test_two_datasets_are_never_mixed() -> None:
    """The newer one has the name, and the other one another, as a whole."""
    place = "vector_db/collections/symbiont_context.lance"
    tree = {f"{place}/_versions/1.manifest": (b"m", at(9)), f"{place}/data/b.lance": (b"other", at(9))}
    found = planned(DATASET, tree, kind=Kind.VECTORS)
    assert [(place, f"vector_db/collections/symbiont_context-{int(at(9))}.lance")] == [m[:2] for m in found.moves]
    assert {("bring", None)} == {(step.deed.value, step.standing) for step in found.steps}
    newer = {path: (content, at(1)) for path, (content, _) in tree.items()}
    other = planned(DATASET, newer, kind=Kind.VECTORS)
    assert ([], 2) == (other.moves, len(other.copies))
    assert all(f"symbiont_context-{int(at(5))}.lance/" in step.to.path for step in other.copies)
    same = {f"vector_db/collections/{path}": one for path, one in DATASET.items()}
    assert {"same"} == {deed for deed, _, _ in steps(planned(DATASET, same, kind=Kind.VECTORS)).values()}


def test_steps_are_counted_by_kind() -> None:
    """In the order in which the kinds are met, with the bytes that are written."""
    source = {name: (b"12345", at(5)) for name in ("a", "b", ".env")} | {f"{A}.json": (b"{", at(5))}
    found = counted(planned(source).steps)
    assert [("legacy_key", 1, 0), ("damaged_set_aside", 1, 1), ("file_migrated", 2, 10)] == list(found)


# Again


def test_a_file_that_has_changed_takes_the_place_of_its_own_copy() -> None:
    """As long as nobody has changed that; then it is a conflict like any other."""
    place = f"{AGENTS}/{A}.json.gz"
    tree = {place: (context("copy", zipped=True), at(5))}
    standing = Tree(tree).entries[place]
    known = {
        f"{A}.json": Known(f"{A}.json", Identity(1, 1, 1), "bring", Place(False, place), b"", Identity.of(standing))
    }
    source = {f"{A}.json": (context("changed"), at(9))}
    assert {f"{A}.json": ("bring", place, "")} == steps(planned(source, tree, known=known))
    changed = {place: (context("by the runtime", zipped=True), at(1))}
    (deed, to, _), *_ = steps(planned(source, changed, known=known)).values()
    assert ("bring", f"{AGENTS}/{A}.backup.{int(at(9))}.json") == (deed, to)


# Whatever there is

_BODIES = st.sampled_from(
    [context(t, at(h) if h else None, zipped=z) for t in "abc" for h in (0, 3, 7) for z in (False, True)]
)
_BROKEN = st.sampled_from([b"", b"{", bytes(40), b'{"agent_id": 1}', context(zipped=True)[:40], b"\xff"])
_TIMES = st.sampled_from([at(h) for h in (1, 2, 3, 50, 51)])
_ENDINGS = (".json", ".json.gz", ".backup.50.json", ".json.backup.50.json", ".backup.51.json")
_OTHERS = [
    f"archives/{A}/archive_5.json",
    f"archives/{A}/archive_6.tmp",
    "odd\udcff.txt",
    "index.json",
    "x.key",
    "a" * 250,
]
_NAMES = st.sampled_from([f"{a}{ending}" for a in (A, B) for ending in _ENDINGS] + _OTHERS)
_FILES = st.dictionaries(_NAMES, st.tuples(_BODIES | _BROKEN, _TIMES), max_size=12)


_SAME_IN_THE_WRONG_MODE = (
    {f"{A}.json": (context("a", None), at(50)), f"{A}.json.gz": (context("b", None, zipped=True), at(3))},
    {f"{A}.json.gz": (context("a", None), at(1))},
)
_SAME_AND_NEWER_THERE = (
    {f"{A}.json": (context("a", None), at(1)), f"{A}.json.gz": (context("b", None, zipped=True), at(3))},
    {f"{A}.json.gz": (context("a", None, zipped=True), at(50))},
)


@given(_FILES, _FILES, st.booleans(), st.randoms(use_true_random=False), st.sampled_from([1, 3]))
@example(*_SAME_IN_THE_WRONG_MODE, True, Random(1), 1)
@example(*_SAME_AND_NEWER_THERE, True, Random(1), 1)
def test_whatever_there_is_nothing_is_lost_and_nothing_meets(
    source: dict[str, tuple[bytes, float]],
    tree: dict[str, tuple[bytes, float]],
    zipped: bool,
    random: "object",
    keep: int,
) -> None:
    """Each file is brought, set aside, there already, or left with a word; no two come to one place."""
    target = Target("/tree", Path("/datad"), gzip=zipped, backup_count=keep)
    there = {f"{AGENTS}/{path}": one for path, one in tree.items()}
    found = planned(source, there, target=target)
    assert set(source) == {step.file.path for step in found.steps}
    places = [place for step in found.copies for place in (step.to, step.moved) if place is not None]
    assert len(places) == len(set(places))
    for step in found.copies:
        assert len(os.fsencode(os.path.basename(step.to.path))) <= 255 or step.to.aside
        assert step.to.aside or (step.to.path in there) == (step.moved is not None)
        assert step.moved is None or step.moved.aside or step.moved.path not in there
    shuffled = list(source.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert steps(found) == steps(planned(dict(shuffled), there, target=target))
    for a in (A, B):
        _newest_is_live(a, source, there, found, target)


def _newest_is_live(a: str, source: Files, there: Files, found: Plan, target: Target) -> None:
    """After the plan the live context of an agent is the newest sound one that loads, if there is one at all.

    One that does not load counts as well if the source has the same text: that comes in the mode that loads.
    """
    place = f"{AGENTS}/{a}{target.extension}"
    versions = []
    for path, (content, mtime) in (*source.items(), *there.items()):
        if path not in (f"{a}.json", f"{a}.json.gz", place):
            continue
        seen = of_data(content, CONTESTED)[0]
        if not seen.damage:
            loads = path != place or seen.gzip is target.gzip
            versions.append((loads, seen.updated_ns or int(mtime * 1e9), seen.text, path))
    if not versions:
        return
    live: list[Step] = [step for step in found.copies if step.to == Place(False, place)]
    if live:
        now = of_data(source[live[0].file.path][0], CONTESTED)[0].text
    else:
        now = of_data(there[place][0], CONTESTED)[0].text
    come = {text for loads, _, text, _ in versions if loads or len(versions) == 1}
    newest = max(when for _, when, text, _ in versions if text in come)
    assert newest in [when for _, when, text, _ in versions if text == now]
