"""`check`: what is seen of the machine, and what goes into a bundle."""

import gzip
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.cli.conftest import Datad, Shelf
from tests.support import build_tree

PROBES = [
    "program", "settings", "owners", "file system", "watching", "clock", "repository", "service", "daemon",
]  # fmt: skip
PASSWORD, TOKEN, VARIABLE, TURN = "correct-horse-battery", "token-of-the-page", "cloud-secret-value", "what-was-said"
AGENT, LOG, TEMPLATE, COLLECTION, DAY = "payroll-bot", "Ana Lyst", "salary-letter", "employees", "customer-4711"


@pytest.fixture
def kept(datad: Datad, root: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that agents have used, with secrets and names everywhere; hands back the settings file."""
    file = tmp_path / "user" / ".symbiont" / "datad.toml"
    file.parent.mkdir(parents=True)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    file.write_text(
        f'root_data_dir = "{root}"\n[backup]\npassword = "{PASSWORD}"\n'
        f'[http]\nlisten = "127.0.0.1:1"\ntoken_file = "{token}"\n'
    )
    file.chmod(0o600)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VARIABLE)
    datad("init")
    replace(shelf, password=PASSWORD).make()
    build_tree(
        root,
        {
            "state": {"agents": {f"{AGENT}.json": f'{{"{TURN}": '.encode()}},
            "logs": {"agents": {f"{LOG}.log": TURN.encode()}},
            "prompts": {"templates": {f"{TEMPLATE}.md": b"\0"}, "cache": {f"{DAY}.json": b""}},
            "vector_db": {"collections": {COLLECTION: {"x": TURN.encode()}}},
        },
    )
    for path in (f"state/agents/{AGENT}.json", f"prompts/cache/{DAY}.json"):
        os.utime(root / path, (1e9, 1e9))
    (root / "state" / "agents" / f"{AGENT}.json").chmod(0o640)
    for words in (["sweep"], ["clean"], ["backup"]):
        datad(*words)
    return file


def members(archive: Path) -> dict[str, bytes]:
    """What is in a bundle, by name."""
    packed = archive.read_bytes()
    plain = zstandard.decompress(packed) if archive.suffix == ".zst" else gzip.decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        found = {}
        for member in tar.getmembers():
            assert 0o600 == member.mode
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.partition("/")[2]] = file.read()
    return found


def test_every_probe_is_told(datad: Datad, kept: Path, root: Path) -> None:
    """A line for each, facts in JSON, and findings that say which probe has them."""
    done = datad("check")
    lines = done.stdout.splitlines()
    assert PROBES == [line[:12].strip() for line in lines[: len(PROBES)]]
    assert str(kept) in lines[1]
    assert "opens, 3 snapshots" in lines[6]
    document = datad("check", "--json").document
    assert PROBES == [one["probe"] for one in document["checks"]]
    facts = {one["probe"]: one["facts"] for one in document["checks"]}
    assert (True, 3) == (facts["repository"]["opens"], facts["repository"]["snapshots"])
    assert facts["program"]["libraries"]
    assert {"tree"} < {*PROBES, "tree"} >= {one["probe"] for one in document["findings"]}
    assert document["bundle"] is None


@pytest.mark.parametrize("name", ["b.tar.gz", "b.tar.zst"])
def test_a_bundle_holds_no_secret_no_content_and_no_name(datad: Datad, kept: Path, tmp_path: Path, name: str) -> None:
    """What was planted is nowhere in it, not even in the events of what was done to it; what helps is there."""
    file = tmp_path / name
    done = datad("check", "--bundle", file)
    assert 3 == done.returncode, done.stderr
    assert str(file) in done.stdout
    assert 0o600 == file.stat().st_mode & 0o777
    found = members(file)
    assert {"README.txt", "checks.json", "settings.json", "runs.json", "events.jsonl", "tree.json"} <= set(found)
    for planted in (PASSWORD, TOKEN, VARIABLE, TURN, AGENT, LOG, TEMPLATE, COLLECTION, DAY, str(tmp_path / "user")):
        assert [] == [member for member, content in found.items() if planted.encode() in content], planted
    readme = found.pop("README.txt").decode()
    assert all(member in readme for member in found)
    documents: dict[str, Any] = {one: json.loads(text) for one, text in found.items() if one.endswith(".json")}
    values = {one["name"]: one["value"] for one in documents["settings.json"]["settings"]}
    assert ("**********", 3) == (values["backup.password"], values["backup_count"])
    places = {one["path"]: one for one in documents["tree.json"]["directories"]}
    assert (1, {"0o640": 1}) == (places["state/agents"]["entries"], places["state/agents"]["modes"])
    assert {"backup", "sweep", "clean"} <= set(documents["runs.json"]["runs"])
    events = [json.loads(line) for line in found["events.jsonl"].splitlines()]
    assert any(one["path"].startswith("prompts/cache/~") for one in events)
    kinds = {one["kind"] for one in documents["checks.json"]["findings"]}
    assert "context_truncated" in kinds


def test_a_bundle_replaces_nothing(datad: Datad, tmp_path: Path) -> None:
    """What has the name stays, and another kind of archive is refused, before anything is looked at."""
    file = tmp_path / "b.tar.gz"
    file.write_bytes(b"mine")
    for name in (file, tmp_path / "b.zip"):
        done = datad("check", "--bundle", name)
        assert (1, "") == (done.returncode, done.stdout)
    assert b"mine" == file.read_bytes()


def test_settings_that_are_wrong(datad: Datad, kept: Path, tmp_path: Path) -> None:
    """Exit code 2, the problems, and what can be said without them; a bundle has those."""
    kept.write_text('backup_count = "many"\n[backup]\npassword = "correct-horse-battery"\n')
    file = tmp_path / "b.tar.gz"
    done = datad("check", "--bundle", file)
    assert 2 == done.returncode
    assert done.stdout.startswith("program  symbiont-datad ")
    assert "backup_count" in done.stderr
    found = members(file)
    assert {"README.txt", "checks.json", "problems.txt"} == set(found)
    assert b"backup_count" in found["problems.txt"]
    assert PASSWORD.encode() not in b"".join(found.values())
    document = datad("check", "--json").document
    assert ["program"] == [one["probe"] for one in document["checks"]]
    assert any("backup_count" in line for line in document["problems"])


def test_what_is_wrong_with_the_machine_counts(datad: Datad, kept: Path, root: Path) -> None:
    """A wrong password and a ledger open to all make exit code 3, each with what to do; a note alone does not."""
    kept.write_text(kept.read_text().replace(PASSWORD, "another-password"))
    (root.parent / "datad").chmod(0o777)
    done = datad("check")
    assert 3 == done.returncode
    assert "error: repository: " in done.stdout
    assert "set backup.password_file" in done.stdout
    assert "error: owners: " in done.stdout
    assert "chmod o-w" in done.stdout


@pytest.mark.usefixtures("ample")
def test_nothing_wrong(datad: Datad, root: Path) -> None:
    """A new tree is all good, with notes at most; looking makes nothing."""
    datad("init")
    before = sorted(root.parent.rglob("*"))
    done = datad("check")
    assert 0 == done.returncode, done.stdout
    assert ": all good" in done.stdout.splitlines()[-1]
    assert before == sorted(root.parent.rglob("*"))


def test_a_ledger_that_is_damaged(datad: Datad, root: Path) -> None:
    """It is told of, left as it is, and keeps nothing else from being looked at."""
    datad("init")
    ledger = root.parent / "datad" / "ledger.db"
    ledger.parent.mkdir()
    ledger.write_bytes(b"no database" * 1000)
    done = datad("check")
    assert 3 == done.returncode
    assert f"error: ledger unread: {ledger}: " in done.stdout
    assert PROBES == [line[:12].strip() for line in done.stdout.splitlines()[: len(PROBES)]]
    assert ledger.read_bytes().startswith(b"no database")
