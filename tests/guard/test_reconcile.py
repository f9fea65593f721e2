"""One pass over the layout on a real disk: what it finds, what it repairs, and what it leaves alone."""

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.guard.reconcile import reconcile
from symbiont_datad.guard.scope import covers
from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import DriftKind
from tests.conftest import AsNobody
from tests.guard.causes import CAUSES, Cause, empty
from tests.guard.keeping import NOW, again, is_directory, layout_at, made, mode_of, picture, small_layout

AS_ROOT = os.geteuid() == 0


def owned(layout: Layout) -> Layout:
    """The same layout with the owner declared that the test runs as."""
    return Layout(layout.root, layout.directories, layout.categories, uid=os.geteuid(), gid=os.getegid())


@pytest.mark.parametrize("path", ["logs/agents", "vector_db/collections", "prompts/history/2026-11-23", "state"])
@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_one_pass_repairs_any_drift(tmp_path: Path, cause: Cause, path: str) -> None:
    """Whatever happened to a directory, one pass names it as what it is and repairs it, and a second does nothing."""
    if cause.root_only and not AS_ROOT:
        pytest.skip("only root can give a directory away")
    (tmp_path / "elsewhere").mkdir()
    layout = owned(made(layout_at(tmp_path / "data")))
    at = tmp_path / "data" / path
    at.mkdir(exist_ok=True)
    empty(at)
    cause.act(at)
    result = again(layout)
    if layout.by_path.get(path) is None and cause.kind in (DriftKind.MISSING, DriftKind.OBSTRUCTED):
        assert ([], []) == ([*result.drifts], [*result.actions])  # what users do with their own directories is theirs
        return
    assert cause.kind in [drift.kind for drift in result.drifts if drift.path == path]
    assert () == result.failures
    assert is_directory(at)
    assert (0o755, os.geteuid()) == (mode_of(at), at.stat().st_uid)
    second = again(layout)
    assert [] == [*second.drifts, *second.actions, *second.appeared]
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_what_stood_in_the_way_is_kept(tmp_path: Path) -> None:
    """A file in a directory's place is in quarantine afterwards, with its content and a record."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data/logs/audit").rmdir()
    (tmp_path / "data/logs/audit").write_bytes(b"evidence")
    kinds = [action.kind for action in again(layout).actions]
    assert ["obstruction_quarantined", "directory_recreated"] == kinds
    (cell,) = (tmp_path / "data" / QUARANTINE).iterdir()
    assert b"evidence" == (cell / "item").read_bytes()
    assert {"item", "record.json"} == {path.name for path in cell.iterdir()}


def test_a_link_in_place_of_the_root_is_set_aside(tmp_path: Path) -> None:
    """A root that became a link is not followed: the link lies beside it afterwards, and its target is untouched."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to("moved")
    before = picture(tmp_path / "moved")
    again(layout)
    assert is_directory(tmp_path / "data")
    (aside,) = (path for path in tmp_path.iterdir() if "obstruction" in path.name)
    assert "moved" == os.readlink(aside)
    assert before == picture(tmp_path / "moved")


def test_setgid_is_inherited_and_stays(tmp_path: Path) -> None:
    """A directory that is made anew below one with set-group-ID has it too, and that is no drift."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data/logs").chmod(0o2755)
    (tmp_path / "data/logs/agents").rmdir()
    again(layout)
    assert 0o2755 == mode_of(tmp_path / "data/logs") == mode_of(tmp_path / "data/logs/agents")
    assert () == again(layout).drifts


def test_modes_hold_whatever_the_umask(tmp_path: Path) -> None:
    """The umask takes nothing from a declared mode."""
    before = os.umask(0o077)
    try:
        made(layout_at(tmp_path / "data", permissions={"logs/audit": 0o750}, dir_permissions=0o775))
    finally:
        os.umask(before)
    assert (0o775, 0o775, 0o750) == tuple(mode_of(tmp_path / "data" / path) for path in ("", "logs", "logs/audit"))


def test_files_are_never_touched(tmp_path: Path) -> None:
    """Whatever a file's mode, age or name, a pass that repairs everything around it leaves it as it was."""
    layout = made(layout_at(tmp_path / "data"))
    for path in ("state/agents/a.json", "logs/agents/a.log", "vector_db/collections/x"):
        (tmp_path / "data" / path).write_bytes(b"mine")
        (tmp_path / "data" / path).chmod(0o4777)
    before = {path: seen for path, seen in picture(tmp_path / "data").items() if seen.content is not None}
    for path in ("state/agents", "logs/agents", "vector_db/collections", "logs"):
        (tmp_path / "data" / path).chmod(0o777)
    assert 4 == len(again(layout).actions)
    assert before == {path: seen for path, seen in picture(tmp_path / "data").items() if seen.content is not None}


def test_what_is_not_required_is_kept_but_not_made(tmp_path: Path) -> None:
    """`archives` is the runtime's to make; once it is there, it and what is in it have the declared mode."""
    layout = made(layout_at(tmp_path / "data"))
    archives = tmp_path / "data/state/agents/archives"
    assert not archives.exists()
    (archives / "agent").mkdir(parents=True)
    archives.chmod(0o700)
    (archives / "agent").chmod(0o777)
    assert {"state/agents/archives", "state/agents/archives/agent"} == {one.path for one in again(layout).actions}
    assert 0o755 == mode_of(archives) == mode_of(archives / "agent")


def test_without_auto_create_dirs_nothing_is_made_or_moved(tmp_path: Path) -> None:
    """With `auto_create_dirs` off, what is missing or obstructed is reported and left; a mode is still repaired."""
    made(layout_at(tmp_path / "data"))
    layout = layout_at(tmp_path / "data", auto_create_dirs=False)
    (tmp_path / "data/logs/agents").rmdir()
    (tmp_path / "data/logs/audit").rmdir()
    (tmp_path / "data/logs/audit").write_bytes(b"")
    (tmp_path / "data/logs").chmod(0o700)
    result = again(layout)
    assert {("not_created", "logs/agents"), ("not_created", "logs/audit")} == {
        (failure.kind, failure.path) for failure in result.failures
    }
    assert ["permissions_restored"] == [action.kind for action in result.actions]
    assert not (tmp_path / "data/logs/agents").exists()
    assert (tmp_path / "data/logs/audit").is_file()


@pytest.mark.parametrize("root", ["data", "above/data"])
def test_without_auto_create_dirs_not_even_the_root_is_made(tmp_path: Path, root: str) -> None:
    """A root that is missing, or lies in a directory that is, stays missing with all above it, and the pass says so."""
    result = again(layout_at(tmp_path / root, auto_create_dirs=False))
    assert not result.rooted
    assert [("not_created", "")] == [(failure.kind, failure.path) for failure in result.failures]
    assert [] == list(tmp_path.iterdir())


def test_check_touches_nothing(tmp_path: Path) -> None:
    """A pass that only looks finds what a repairing one would, and leaves every byte and mode as it was."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data/logs/agents").rmdir()
    (tmp_path / "data/state").chmod(0o700)
    (tmp_path / "data/prompts/cache").rmdir()
    (tmp_path / "data/prompts/cache").symlink_to("history")
    before = picture(tmp_path)
    looked = reconcile(layout, now=NOW, repairing=False)
    assert before == picture(tmp_path)
    assert () == looked.actions
    assert looked.drifts == again(layout).drifts


def test_parents_of_the_root_are_made(tmp_path: Path) -> None:
    """Where the directories above the root have gone too, they are made."""
    again(layout_at(tmp_path / "a/b/data"))
    assert is_directory(tmp_path / "a/b/data/logs/audit")


def test_a_parent_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """When a directory above the root is replaced by a link, the tree behind it is not touched."""
    layout = made(layout_at(tmp_path / "a/data"))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b/data/logs/audit").rmdir()
    with pytest.raises(NotADirectoryError):
        again(layout)
    assert not (tmp_path / "b/data/logs/audit").exists()


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Passes that repair, fail and are refused leave as many descriptors open as there were."""
    layout = made(layout_at(tmp_path / "data"))
    before = os.listdir("/proc/self/fd")
    for path in ("logs", "state/agents", ""):
        at = tmp_path / "data" / path
        at.rename(tmp_path / "aside")
        again(layout)
        at.rename(tmp_path / "second")
        at.write_bytes(b"")
        again(layout)
        for name in ("aside", "second"):
            (tmp_path / name).rename(tmp_path / f"{name}-{path.replace('/', '-')}")
    assert before == os.listdir("/proc/self/fd")


def test_a_backed_off_directory_is_left(tmp_path: Path) -> None:
    """What may not be repaired yet is found and not touched; the answer is asked for once, however much differs."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data/logs/audit").chmod(0o700)
    (tmp_path / "data/logs/system").chmod(0o700)
    asked: list[str] = []

    def allow(path: str) -> bool:
        asked.append(path)
        return path != "logs/audit"

    stranger = Layout(layout.root, layout.directories, layout.categories, uid=os.geteuid(), gid=os.getegid())
    result = reconcile(stranger, now=NOW, allow=allow)
    assert ["logs/audit", "logs/system"] == sorted(asked)
    assert ["logs/system"] == [action.path for action in result.actions]
    assert 0o700 == mode_of(tmp_path / "data/logs/audit")


ROWS = (
    Directory("a", 0o755, "a"),
    Directory("b", 0o700, "b", open=True),
    Directory("a/c", 0o750, "c", open=True),
    Directory("a/d", 0o755, "d", required=False),
    Directory("a/c/e", 0o755, "e"),
)
PLACES = [*(row.path for row in ROWS), "b/own", "a/c/own", "a/c/own/deep"]
DRIFTS = ("rmdir", "file", "link", "fifo", "chmod", "replace")
drifts = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(DRIFTS), st.integers(0, 0o7777)), max_size=6)


def disturb(root: Path, path: str, how: str, mode: int) -> None:
    """Do one thing to one path of a tree, if it can be done."""
    at = root / path
    if how == "chmod":
        if is_directory(at):
            at.chmod(mode)
        return
    if at.is_symlink() or at.exists():
        at.rename(root.parent / f"aside-{len(list(root.parent.iterdir()))}")
    if not is_directory(at.parent):
        return
    if how == "file":
        at.write_bytes(b"x")
    elif how == "link":
        at.symlink_to(root.parent / "outside")
    elif how == "fifo":
        os.mkfifo(at)
    elif how == "replace":
        at.mkdir()
        at.chmod(mode)


def tree_for_hypothesis(base: str) -> tuple[Path, Layout]:
    """A tree with directories of users, and a directory outside."""
    root = Path(base) / "data"
    (Path(base) / "outside").mkdir()
    layout = made(small_layout(root, *ROWS))
    for own in ("b/own", "a/c/own", "a/c/own/deep"):
        (root / own).mkdir()
    made(layout)
    return root, layout


@given(drifts)
@settings(deadline=None, max_examples=120)
def test_any_drift_is_gone_after_one_pass(steps: list[tuple[str, str, int]]) -> None:
    """Whatever was done to whatever part of a tree, one pass leaves no drift, and a second one does nothing."""
    with tempfile.TemporaryDirectory() as base:
        root, layout = tree_for_hypothesis(base)
        for step in steps:
            disturb(root, *step)
        outside = picture(Path(base) / "outside")
        result = again(layout)
        assert () == result.failures
        for row in ROWS:
            at = root / row.path
            if row.required or at.exists():
                assert is_directory(at)
                assert row.mode == mode_of(at) & ~stat.S_ISGID
        second = again(layout)
        assert [] == [*second.drifts, *second.actions]
        assert outside == picture(Path(base) / "outside")


@given(drifts, st.dictionaries(st.sampled_from([*PLACES, ""]), st.booleans(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=120)
def test_a_hint_repairs_what_it_names_and_nothing_else(
    steps: list[tuple[str, str, int]], scope: dict[str, bool]
) -> None:
    """A pass over a scope repairs what that covers (as far as its parents are there) and changes nothing beyond it."""
    with tempfile.TemporaryDirectory() as base:
        root, layout = tree_for_hypothesis(base)
        for step in steps:
            disturb(root, *step)
        before = reconcile(layout, now=NOW, repairing=False).drifts
        result = reconcile(layout, scope, now=NOW)
        after = reconcile(layout, now=NOW, repairing=False).drifts
        assert () == result.failures
        assert all(covers(scope, layout, action.path) for action in result.actions)
        left = {(drift.path, drift.kind) for drift in before if not covers(scope, layout, drift.path)}
        assert left <= {(drift.path, drift.kind) for drift in after}
        for drift in after:
            assert not covers(scope, layout, drift.path) or not is_directory((root / drift.path).parent)


def test_an_unreadable_directory_does_not_stop_the_rest(open_path: Path, as_nobody: AsNobody) -> None:
    """Where one directory belongs to somebody else and can't be entered, all others are repaired all the same."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    os.chown(open_path / "data/logs", 0, 0)
    (open_path / "data/logs").chmod(0)
    (open_path / "data/vector_db/metadata").rmdir()
    result = as_nobody(lambda: again(layout))
    assert ["vector_db/metadata"] == [action.path for action in result.actions]
    assert {"logs"} == {finding.path.split("/")[0] for finding in result.failures}
    assert ["logs"] == [drift.path for drift in result.drifts if drift.path.startswith("logs")]
    (open_path / "data/logs").chmod(0o755)
    assert () == as_nobody(lambda: again(layout)).failures


def test_modes_are_repaired_from_nothing_up(open_path: Path, as_nobody: AsNobody) -> None:
    """Somebody who is not root repairs a tree of their own in which no directory may be entered, in one pass."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    for row in reversed(layout.directories):
        if row.required:
            (open_path / "data" / row.path).chmod(0)
    result = as_nobody(lambda: again(layout))
    assert () == result.failures
    assert () == as_nobody(lambda: again(layout)).drifts
    assert {0o755} == {mode_of(open_path / "data" / row.path) for row in layout.directories if row.required}


def test_what_is_not_ours_to_repair_is_reported(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory of root's with another mode, and one missing below it, are each one failure with its reason."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    (open_path / "data/logs/agents").rmdir()
    os.chown(open_path / "data/logs", 0, 0)
    (open_path / "data/logs").chmod(0o711)
    result = as_nobody(lambda: again(layout))
    assert [
        ("repair_failed", "logs", "mode not repaired: Operation not permitted"),
        ("repair_failed", "logs/agents", "missing not repaired: Permission denied"),
    ] == [(failure.kind, failure.path, failure.detail) for failure in result.failures]


def test_what_was_moved_aside_is_told_even_if_the_directory_can_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills between the move to quarantine and the mkdir: the move is an action, the mkdir a failure."""
    layout = made(layout_at(tmp_path / "data"))
    at = tmp_path / "data" / "logs" / "agents"
    at.rmdir()
    at.write_bytes(b"in the way")
    mkdir = os.mkdir

    def full(name: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if name == "agents" and not at.exists():
            raise OSError(28, "No space left on device")
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", full)
    result = reconcile(layout, now=NOW)
    assert ["obstruction_quarantined"] == [action.kind for action in result.actions]
    assert ["repair_failed"] == [failure.kind for failure in result.failures]
    (item,) = (tmp_path / "data").glob(".quarantine/*/item")
    assert b"in the way" == item.read_bytes()
    monkeypatch.undo()
    assert ["directory_recreated"] == [action.kind for action in reconcile(layout, now=NOW).actions]


# The days of the history


def test_today_and_tomorrow_are_made(tmp_path: Path) -> None:
    """In the guard's pass, with the mode and owner of the history; they are no drift, and a check makes none."""
    layout = made(layout_at(tmp_path / "data", permissions={"prompts/history": 0o2750}))
    history = tmp_path / "data/prompts/history"
    assert () == reconcile(layout, now=NOW, days=True, repairing=False).drifts
    assert [] == os.listdir(history)
    result = reconcile(layout, now=NOW, days=True)
    days = sorted(os.listdir(history))
    assert {"2026-11-18", "2026-11-19"} <= set(days)
    assert () == result.drifts
    assert {("directory_created", f"prompts/history/{day}") for day in days} == {
        (action.kind, action.path) for action in result.actions
    }
    assert {0o2750} == {(history / day).stat().st_mode & 0o7777 for day in days}
    assert () == reconcile(layout, now=NOW, days=True).actions


def test_a_day_that_is_removed_is_made_again(tmp_path: Path) -> None:
    """As soon as the guard is told of it; the next midnight another one is."""
    layout = made(layout_at(tmp_path / "data"))
    history = tmp_path / "data/prompts/history"
    reconcile(layout, now=NOW, days=True)
    (history / "2026-11-19").rmdir()
    reconcile(layout, {"prompts/history/2026-11-19": False}, now=NOW, days=True)
    assert (history / "2026-11-19").is_dir()
    reconcile(layout, now=NOW + 86_400, days=True)
    assert (history / "2026-11-20").is_dir()


def test_what_has_the_name_of_a_day_is_left(tmp_path: Path) -> None:
    """A file is a user's own; without auto_create_dirs, or with make_days off, nothing is made."""
    layout = made(layout_at(tmp_path / "data"))
    history = tmp_path / "data/prompts/history"
    (history / "2026-11-18").write_bytes(b"mine")
    result = reconcile(layout, now=NOW, days=True)
    assert ((), b"mine") == (result.failures, (history / "2026-11-18").read_bytes())
    for other in ({"guard": {"make_days": False}}, {"auto_create_dirs": False}):
        off = layout_at(tmp_path / "data", **other)
        before = sorted(os.listdir(history))
        result = reconcile(off, now=NOW + 9 * 86_400, days=True)
        assert (before, ()) == (sorted(os.listdir(history)), result.failures)


@pytest.mark.parametrize("how", [("-t", "tmpfs", "tmpfs"), ("--bind", "elsewhere")])
def test_what_is_mounted_in_the_tree_is_not_kept(tmp_path: Path, how: tuple[str, ...]) -> None:
    """Another file system, or another directory bound there, with a wrong mode and empty: it is said, and stays so."""
    if not AS_ROOT:
        pytest.skip("only root mounts")
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/prompts/cache").rmdir()
    at = tmp_path / "data/logs"
    subprocess.run(["mount", *how, at], cwd=tmp_path, check=True)
    try:
        at.chmod(0o700)
        result = again(layout)
        named = reconcile(layout, {"logs/audit": True}, now=NOW)
        assert (0o700, []) == (mode_of(at), os.listdir(at))
    finally:
        subprocess.run(["umount", at], check=True)
    assert [("mount_point", "logs")] == [(finding.kind, finding.path) for finding in result.failures]
    assert ["prompts/cache"] == [action.path for action in result.actions]
    assert [("mount_point", "logs")] == [(finding.kind, finding.path) for finding in named.failures]


def test_a_directory_that_can_not_be_listed_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """What users have made in it can't be looked at; the directory itself is as it should be."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data", permissions={"vector_db/collections": 0o711})
    as_nobody(lambda: made(layout))
    os.chown(open_path / "data/vector_db/collections", 0, 0)
    assert [("unreadable", "vector_db/collections", "its directories can't be listed: Permission denied")] == [
        (finding.kind, finding.path, finding.detail) for finding in as_nobody(lambda: again(layout)).failures
    ]


def test_days_that_can_not_be_looked_at_are_left(open_path: Path, as_nobody: AsNobody) -> None:
    """Whoever writes there will tell; the rest of the pass goes on."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    history = open_path / "data/prompts/history"
    os.chown(history, 0, 0)
    history.chmod(0)
    (open_path / "data/state/sessions").rmdir()
    result = as_nobody(lambda: reconcile(layout, now=NOW, days=True))
    assert ["state/sessions"] == [action.path for action in result.actions]
    assert {"prompts/history"} == {finding.path for finding in result.failures}
