"""Audit archives: listed in a chain, never removed unasked, and whatever is done to them is found by `check`."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.formats.chain import FIRST, Listed, hash_of, line_of
from symbiont_datad.jobs import audit_chain, rotation
from symbiont_datad.jobs.audit_chain import AuditChain, removed_by_rules, verify
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.report import Severity
from symbiont_datad.retention.logs import LogRule
from symbiont_datad.retention.rules import Rule
from tests.conftest import AsNobody
from tests.jobs.log_writing import EVERYTHING, archives_of, lines, log_settings_for
from tests.jobs.making import DAY, NOW, ledger_of, run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "SETTLE_S", 0.01)


def rotations(settings: JobSettings, count: int = 3, first: int = 0, name: str = "security.log") -> list[Path]:
    """The archives of an audit log after so many rotations."""
    log = Path(settings.layout.root) / "logs/audit" / name
    log.parent.mkdir(exist_ok=True)
    for number in range(first, first + count):
        log.write_bytes(lines(50, number * 50))
        run("rotate", settings, now=NOW + number)
    return archives_of(log)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with three archives of an audit log, to be copied."""
    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation, "SETTLE_S", 0.0)
        rotations(log_settings_for(base))
    return base


@pytest.fixture
def settings(made: Path, tmp_path: Path) -> JobSettings:
    """The settings of a copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    return log_settings_for(tmp_path / "copy")


def found(settings: JobSettings) -> list[tuple[str, str]]:
    """What `check` finds, each as its kind and its path below the audit logs."""
    with ledger_of(settings) as ledger:
        findings = verify(settings, removed_by_rules(settings, ledger))
    assert all(finding.remedy for finding in findings)
    return [(finding.kind, finding.path.removeprefix("logs/audit/")) for finding in findings]


def manifest(settings: JobSettings) -> Path:
    """The manifest's path."""
    return Path(settings.layout.root) / AuditChain(settings).path


def test_each_archive_has_a_line(settings: JobSettings) -> None:
    """Name, size and hash of what is on the disk, in the order of the stream; all is well."""
    archives = rotations(settings, 0)
    entries = [json.loads(line) for line in manifest(settings).read_text().splitlines()]
    assert [path.name for path in archives] == [entry["archive"] for entry in entries]
    assert [path.stat().st_size for path in archives] == [entry["bytes"] for entry in entries]
    assert [1, 2, 3] == [entry["number"] for entry in entries]
    assert [] == found(settings)
    assert 0o600 == manifest(settings).stat().st_mode & 0o7777


def test_logs_that_are_no_audit_logs_have_no_line(tmp_path: Path) -> None:
    """The manifest is about audit logs alone, below their directory too."""
    settings = log_settings_for(tmp_path)
    (tmp_path / "data/logs/system/a.log").write_bytes(lines(50))
    run("rotate", settings)
    assert not manifest(settings).exists()
    rotations(settings, 1, name="mode-b/session.jsonl")
    assert json.loads(manifest(settings).read_text())["archive"].startswith("mode-b/session.jsonl.")
    assert [] == found(settings)


def _altered(archives: list[Path], _manifest: Path) -> None:
    content = bytearray(archives[1].read_bytes())
    content[-1] ^= 1
    archives[1].write_bytes(content)


def _removed(archives: list[Path], _manifest: Path) -> None:
    archives[1].unlink()


def _swapped(archives: list[Path], _manifest: Path) -> None:
    one, two = archives[0].read_bytes(), archives[1].read_bytes()
    archives[0].write_bytes(two)
    archives[1].write_bytes(one)


def _planted(archives: list[Path], _manifest: Path) -> None:
    archives[0].with_name("security.log.20260101T000000Z-0001.zst").write_bytes(b"x")


def _line(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[list[Path], Path], None]:
    def done(_archives: list[Path], path: Path) -> None:
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return done


def _gone(_archives: list[Path], path: Path) -> None:
    path.unlink()


def _rewritten(archives: list[Path], path: Path) -> None:
    """An archive is removed, and a chain is made anew that is sound in itself."""
    archives[2].unlink()
    previous, out = FIRST, []
    for number, archive in enumerate([archives[0], archives[1], archives[1]], start=1):
        out.append(line_of(Listed(archive.name, archive.stat().st_size, "00"), number, previous, "now"))
        previous = hash_of(out[-1])
    path.write_bytes(b"".join(out))


@pytest.mark.parametrize(
    ("attack", "kinds"),
    [
        pytest.param(_altered, ["audit_archive_altered"], id="an archive is changed"),
        pytest.param(_removed, ["audit_archive_missing"], id="an archive is removed"),
        pytest.param(_swapped, ["audit_archive_altered"] * 2, id="archives change places"),
        pytest.param(_planted, ["audit_archive_unlisted"], id="an archive is planted"),
        pytest.param(
            _line(lambda some: [some[0], some[1].replace(b"T", b"X", 1), some[2]]),
            ["audit_manifest_broken"],
            id="a line is changed",
        ),
        pytest.param(
            _line(lambda some: [some[0], some[2]]),
            ["audit_manifest_broken", "audit_manifest_cut", "audit_archive_unlisted"],
            id="a line is removed",
        ),
        pytest.param(
            _line(lambda some: [some[1], some[0], some[2]]), ["audit_manifest_broken"] * 3, id="lines change places"
        ),
        pytest.param(
            _line(lambda some: some[:2]),
            ["audit_manifest_cut", "audit_archive_unlisted"],
            id="the last line is cut off",
        ),
        pytest.param(_gone, ["audit_manifest_missing", *["audit_archive_unlisted"] * 3], id="it is removed"),
        pytest.param(
            _rewritten, ["audit_manifest_broken", *["audit_archive_altered"] * 2], id="another one is in its place"
        ),
    ],
)
def test_whatever_is_done_to_them_is_found(
    settings: JobSettings, attack: Callable[[list[Path], Path], None], kinds: list[str]
) -> None:
    """Archives and manifest: what is altered, removed, moved or added, each is a finding with a remedy."""
    archives = rotations(settings, 0)
    attack(archives, manifest(settings))
    assert kinds == [kind for kind, _ in found(settings)]


@pytest.mark.parametrize("attack", [_gone, _line(lambda some: some[:2])], ids=["removed", "cut"])
def test_what_was_done_stays_to_be_seen(settings: JobSettings, attack: Callable[[list[Path], Path], None]) -> None:
    """A line that is added later does not cover it: the chain stays broken there."""
    archives = rotations(settings, 0)
    attack(archives, manifest(settings))
    rotations(settings, 1, first=5)
    assert "audit_manifest_broken" in [kind for kind, _ in found(settings)]


def test_archives_of_audit_logs_stay(tmp_path: Path) -> None:
    """Neither count nor age nor size removes them, unless a rule of the user's names them; then a line says so."""
    everything = replace(EVERYTHING, keep=1, max_age_s=DAY, max_total=1)
    settings = log_settings_for(tmp_path, everything, max_total=1)
    assert 5 == len(rotations(settings, 5))
    run("rotate", settings, now=NOW + 9 * DAY)
    assert 5 == len(rotations(settings, 0))
    named = LogRule("logs.rule audit/*.log", ("audit/*.log",), keep=2)
    ran = run("rotate", log_settings_for(tmp_path, named, everything), now=NOW + 10 * DAY)
    assert (2, 3) == (len(rotations(settings, 0)), ran.report.counts["removed"])
    assert 8 == len(manifest(settings).read_text().splitlines())
    assert [] == found(settings)


def test_what_retention_removes_is_explained_by_the_ledger(settings: JobSettings) -> None:
    """An archive that a rule of `clean` has removed is not missing; one that nobody removed is."""
    archives = rotations(settings, 0)
    for path in archives:
        os.utime(path, (NOW - 50 * DAY, NOW - 50 * DAY))
    os.utime(archives[2], (NOW, NOW))
    rule = Rule("logs/audit", "logs/audit", max_age_s=10 * DAY)
    cleaning = replace(settings, layout=replace(settings.layout, rules=(rule,)), keep_if_open=False)
    run("clean", cleaning)
    assert [archives[2]] == rotations(settings, 0)
    assert [] == found(settings)
    archives[2].unlink()
    assert [("audit_archive_missing", archives[2].name)] == found(settings)


def test_a_planted_archive_is_not_taken_into_the_manifest(settings: JobSettings) -> None:
    """A plain file with the name of an archive is neither compressed nor listed: the manifest vouches for our own."""
    archives = rotations(settings, 0)
    planted = archives[0].with_name("security.log.20260101T000000Z-0001")
    planted.write_bytes(b"I was never there\n")
    run("rotate", settings, now=NOW + 10)
    assert [("audit_archive_unlisted", planted.name)] == found(settings)
    assert 3 == len(manifest(settings).read_text().splitlines())


def test_without_what_was_kept_the_manifest_is_believed(settings: JobSettings) -> None:
    """The daemon's own directory was lost: the chain goes on from what is there."""
    for content in (None, b"no json", b"{}"):
        state = settings.daemon_dir / audit_chain._STATE
        state.unlink()
        if content is not None:
            state.write_bytes(content)
        first = len(manifest(settings).read_text().splitlines())
        rotations(settings, 1, first=first)
        assert [] == found(settings)


def test_what_cant_be_read_is_said(tmp_path: Path) -> None:
    """A manifest that is no file is a warning, and no error of the program."""
    settings = log_settings_for(tmp_path)
    manifest(settings).mkdir()
    (finding,) = verify(settings)
    assert ("audit_unread", Severity.WARNING) == (finding.kind, finding.severity)


def test_an_archive_that_is_there_again_is_found(settings: JobSettings) -> None:
    """The manifest says that a rule has removed it: somebody has put one there since."""
    archives = rotations(settings, 0)
    AuditChain(settings).add_removed(f"logs/audit/{archives[0].name}", "too old", NOW)
    assert [("audit_archive_unlisted", archives[0].name)] == found(settings)
    archives[0].unlink()
    assert [] == found(settings)


def test_a_file_in_the_place_of_the_directory_is_no_news(settings: JobSettings) -> None:
    """The guard tells of it; that all archives are gone is told when there is a directory again."""
    audit = Path(settings.layout.root) / "logs/audit"
    audit.rename(audit.with_name("moved"))
    audit.write_bytes(b"")
    assert [] == found(settings)


def test_archives_that_others_may_not_read_are_told(open_path: Path, as_nobody: AsNobody) -> None:
    """Each with its name, and none is taken for altered."""
    settings = log_settings_for(open_path)
    archives = rotations(settings)
    manifest(settings).chmod(0o644)
    for path in (open_path / "datad", *(open_path / "datad").rglob("*")):
        path.chmod(0o755)
    for path in archives:
        path.chmod(0o600)
    findings = as_nobody(lambda: verify(settings))
    assert {("audit_unread", f"logs/audit/{path.name}") for path in archives} == {
        (finding.kind, finding.path) for finding in findings
    }


def kept(settings: JobSettings) -> dict[str, object]:
    """What is kept of the manifest in the daemon's directory."""
    found: dict[str, object] = json.loads((settings.daemon_dir / "audit-chain.json").read_bytes())
    return found


def test_a_kill_right_after_a_line_was_added_is_no_break(settings: JobSettings) -> None:
    """The line is there, and what was written last does not know it yet but as the next one: the chain goes on."""
    before = kept(settings)
    rotations(settings, 1, name="security.log")
    after = kept(settings)
    (settings.daemon_dir / "audit-chain.json").write_text(json.dumps(before | {"next": after["last"]}))
    rotations(settings, 1, name="security.log")
    assert (5, []) == (kept(settings)["lines"], found(settings))


def test_an_archive_is_listed_once_and_forgotten_if_it_was_expected(settings: JobSettings) -> None:
    """The same again adds no line; what was never expected changes nothing."""
    chain, before = AuditChain(settings), kept(settings)
    last = json.loads(manifest(settings).read_text().splitlines()[-1])
    chain.add(f"logs/audit/{last['archive']}", last["bytes"], last["sha256"], 1_800_000_000.0)
    chain.forget("logs/audit/another")
    assert before == kept(settings)
    assert before["lines"] == len(manifest(settings).read_text().splitlines())


def test_an_archive_that_waits_to_be_listed_is_no_stranger(settings: JobSettings) -> None:
    """It was announced before it was made."""
    place = "security.log.20261201T000000Z-0001"
    AuditChain(settings).expect(f"logs/audit/{place}")
    (manifest(settings).parent / f"{place}.zst").write_bytes(b"x")
    assert [] == found(settings)


def test_a_line_that_is_none_is_found(settings: JobSettings) -> None:
    """Whatever else is in the manifest: it is broken there, and the rest is looked at."""
    manifest(settings).write_bytes(manifest(settings).read_bytes() + b"no line\n")
    assert [("audit_manifest_broken", "archives.manifest")] == found(settings)
