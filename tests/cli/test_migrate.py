"""`migrate`, as a user types it."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from symbiont_datad.ledger import Ledger
from symbiont_datad.quantities import format_size
from tests.cli.conftest import Datad
from tests.cli.test_restore import small_disk
from tests.migrate.making import HOUR, NOW, Home, agent, context, everything, lost, unloadable, write

A, B, C = agent(1), agent(2), agent(3)


@pytest.fixture
def home(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's home, with an old place in a project from which commands are typed."""
    home = Home(tmp_path / "user")
    write(home.old / f"{A}.json", context("a"), NOW - HOUR)
    write(home.old / f"{B}.json", context("b"), NOW - HOUR)
    write(home.old / f"{A}.backup.5.json", context("backup"))
    monkeypatch.chdir(home.base / "project")
    assert root == home.root
    return home


def test_without_options_it_shows_what_there_is_and_asks(datad: Datad, home: Home) -> None:
    """Where nobody can answer, nothing is done: exit code 3."""
    done = datad("migrate")
    assert 3 == done.returncode
    size = format_size(sum(path.stat().st_size for path in home.old.iterdir()))
    backup = format_size((home.old / f"{A}.backup.5.json").stat().st_size)
    contexts = format_size(sum((home.old / f"{one}.json").stat().st_size for one in (A, B)))
    assert [
        f"place      {home.old}  sure: contexts (the old default)",
        "",
        f"{home.old}: 3 files to bring, {size}",
        f"          1  backups, {backup}",
        f"          2  contexts, stored in the mode in force, {contexts}",
    ] == done.stdout.splitlines()
    assert "--yes to bring it over" in done.stderr
    assert not home.root.exists()


def test_nothing_to_find(datad: Datad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0, and how to name a place."""
    monkeypatch.chdir(tmp_path)
    done = datad("migrate", "--yes")
    assert (0, "no legacy data was found; --from DIR names a place\n") == (done.returncode, done.stdout)
    assert [] == datad("migrate", "--yes", "--json").document["places"]


def test_a_dry_run_is_the_plan_file_by_file(datad: Datad, home: Home) -> None:
    """It touches nothing, and what comes after is what it said."""
    done = datad("migrate", "--dry-run")
    assert (0, False) == (done.returncode, home.root.exists())
    assert f"would bring: {home.old}/{A}.json → state/agents/{A}.json.gz: stored as gzip now" in done.stdout
    assert "would bring 3 files" in done.stdout
    planned = datad("migrate", "--dry-run", "--json").document
    brought = datad("migrate", "--yes", "--json").document
    assert planned["actions"] == brought["actions"]
    assert {"context_converted", "backup_migrated"} == {action["kind"] for action in brought["actions"]}
    assert (3, 3, True, False) == (
        planned["counts"]["files"], brought["counts"]["files"], planned["dry_run"], brought["dry_run"],
    )  # fmt: skip


def test_bring_again_and_back(datad: Datad, home: Home) -> None:
    """A second run does nothing; --undo gives back the first state. All of it is in the ledger."""
    first = everything(home.old, home.root)
    done = datad("migrate", "--yes")
    assert 0 == done.returncode
    assert f"brought 3 files, {done.stdout.split('brought 3 files, ')[1].split(',')[0]}, to {home.root}" in done.stdout
    assert [] == lost(home.old, home.root)
    assert [] == unloadable(home.agents, ".json.gz")
    assert "nothing to do; 3 files came over before" in datad("migrate", "--yes").stdout
    assert "would take back 3 files" in datad("migrate", "--undo", "--dry-run").stdout
    undone = datad("migrate", "--undo")
    assert (0, "taken back: 3 files removed, 0 restored, 0 kept\n") == (undone.returncode, undone.stdout)
    assert first == everything(home.old, home.root)
    with Ledger(home.root.parent / "datad" / "ledger.db") as ledger:
        kinds = [row.kind for row in ledger.actions(job="migrate")]
    assert {"context_converted": 2, "backup_migrated": 1, "migration_undone": 3} == {k: kinds.count(k) for k in kinds}
    again = datad("migrate", "--undo")
    assert (1, "symbiont-datad: there is no migration to take back; the last one was undone\n") == (
        again.returncode, again.stderr,
    )  # fmt: skip


def test_what_was_written_since_is_listed_by_undo(datad: Datad, home: Home) -> None:
    """And kept."""
    datad("migrate", "--yes")
    write(home.live(1), context("since", zipped=True), NOW)
    done = datad("migrate", "--undo")
    assert f"written since, and kept: state/agents/{A}.json.gz\n" in done.stdout
    assert context("since", zipped=True) == home.live(1).read_bytes()


def test_damage_is_told_of(datad: Datad, home: Home) -> None:
    """Exit code 3: a person should look at it."""
    write(home.old / f"{B}.json", b"{", NOW - HOUR)
    done = datad("migrate", "--yes")
    assert 3 == done.returncode
    assert f"warning: legacy truncated: {home.old}/{B}.json: truncated" in done.stdout
    assert "1 of them are in quarantine" in done.stdout
    assert b"{" == next(home.root.glob(".quarantine/*/item/contexts/*")).read_bytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_made_up_user_comes_over_whole(datad: Datad, tmp_path: Path, zipped: bool) -> None:
    """Everything at once: contexts of the other mode, conflicts, damage, archives, odd names, LanceDB, logs."""
    home = Home(tmp_path / "user", gzip=zipped)
    old_ending, ending = (".json", ".json.gz") if zipped else (".json.gz", ".json")
    for number in range(30):
        write(home.old / f"{agent(number)}{old_ending}", context(f"old {number}", zipped=not zipped), NOW - HOUR * 2)
        if number % 3 == 0:
            at = NOW - HOUR * (1 if number % 2 else 99)
            write(home.agents / f"{agent(number)}{ending}", context(f"tree {number}", zipped=zipped), at)
    for number, body in enumerate((b"", b"{", bytes(99), b"\xff\xfe", b'{"agent_id": 1}')):
        write(home.old / f"{agent(100 + number)}{old_ending}", body, NOW - HOUR)
    write(home.old / "archives" / A / "archive_5.json", gzip.compress(b"{}"))
    write(home.old / "Zoë's\nnotes", b"odd")
    project = home.base / "project"
    write(project / "data" / "vector_db" / "symbiont_context.lance" / "data" / "a.lance", os.urandom(100_000))
    write(project / "data" / "vector_db" / "symbiont_context.lance" / "_versions" / "1.manifest", b"m")
    write(project / "logs" / "model_io.encrypted.log", b"{}\n")
    write(home.base / ".symbiont" / "logs" / "mcp-cli.log", b"x\n")
    config = tmp_path / "datad.toml"
    config.write_text(f'root_data_dir = "{home.root}"\nenable_compression = {str(zipped).lower()}\n')
    first = everything(home.old, home.root, project)
    os.chdir(project)
    done = datad("--config", config, "migrate", "--yes")
    assert 3 == done.returncode, done.stderr
    for place in (home.old, project / "data" / "vector_db", project / "logs", home.base / ".symbiont" / "logs"):
        assert [] == lost(place, home.root)
    assert [] == unloadable(home.agents, ending)
    assert 0 == datad("--config", config, "migrate", "--yes").returncode
    assert 0 == datad("--config", config, "migrate", "--undo").returncode
    assert first == everything(home.old, home.root, project)


@pytest.mark.slow
def test_link_finish_and_the_snapshot(datad: Datad, home: Home, tmp_path: Path) -> None:
    """The old place becomes a link; at the end a snapshot holds what was in it, and nothing of it is left."""
    write(home.base / "project" / "logs" / "model_io.encrypted.log", b"{}\n")
    write(home.base / "project" / "logs" / "app.log", b"mine\n")
    before = {path.name: path.read_bytes() for path in home.old.iterdir()}
    assert 0 == datad("migrate", "--compat", "symlink", "--yes").returncode
    assert str(home.agents) == os.readlink(home.old)
    planned = datad("migrate", "--finish", "--dry-run")
    aside = home.old.with_name("contexts.before-migration")
    assert f"would do legacy removed: {aside}" in planned.stdout
    assert 3 == datad("migrate", "--finish").returncode
    assert aside.is_dir()
    done = datad("migrate", "--finish", "--yes", "--json").document
    assert (4, []) == (done["removed"], done["left"])
    assert [] == [path for path in (home.old, aside) if os.path.lexists(path)]
    assert ["app.log"] == os.listdir(home.base / "project" / "logs")
    assert 0 == datad("restore", done["snapshot"], "--target", tmp_path / "out").returncode
    restored = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before | {"model_io.encrypted.log": b"{}\n"} == restored
    (snapshot,) = datad("snapshots", "--json").document["snapshots"]
    assert ["legacy"] == snapshot["tags"]
    assert 1 == datad("migrate", "--undo").returncode
    assert "the last one was finished" in datad("migrate", "--undo").stderr
    datad("backup")
    latest = datad("restore", "latest", "--target", tmp_path / "latest", "--dry-run", "--json").document
    assert ["backup"] == latest["snapshot"]["tags"]


@pytest.mark.slow
def test_finish_keeps_what_has_not_come_over(datad: Datad, home: Home) -> None:
    """Keys, links, and what can't be brought: exit code 3, each is named. What was changed comes over before."""
    write(home.old / "schemapin_keys.json", b"secret key")
    (home.old / "link").symlink_to("nowhere")
    datad("migrate", "--yes")
    write(home.old / f"{A}.json", context("a, later"), NOW)
    done = datad("migrate", "--finish", "--yes")
    assert 3 == done.returncode
    assert {"schemapin_keys.json", "link"} == {path.name for path in home.old.iterdir()}
    assert f"stays: {home.old}/schemapin_keys.json: a key or credential: it never moves" in done.stdout
    assert context("a, later") == gzip.decompress(home.live(1).read_bytes())
    listed = datad("restore", "latest", "--tag", "legacy", "--target", "x", "--dry-run").stdout
    assert f"{A}.json" in listed
    assert "schemapin" not in listed


def test_finish_into_quarantine(datad: Datad, home: Home) -> None:
    """Whole, without a snapshot."""
    before = {path.name: path.read_bytes() for path in home.old.iterdir()}
    datad("migrate", "--yes")
    done = datad("migrate", "--finish", "--quarantine", "--yes", "--json").document
    (where,) = done["quarantined"]
    assert before == {path.name: path.read_bytes() for path in (home.root / where).iterdir()}
    assert json.loads((home.root / where).parent.joinpath("record.json").read_text())["path"] == str(home.old)
    assert (None, False) == (done["snapshot"], home.old.exists())
    assert not (home.root.parent / "backups").exists()


@pytest.mark.slow
def test_finish_without_a_repository_removes_nothing(datad: Datad, home: Home, tmp_path: Path) -> None:
    """Where no snapshot can be made."""
    datad("migrate", "--yes")
    before = everything(home.old)
    (home.root.parent / "backups").write_bytes(b"no directory")
    assert datad("migrate", "--finish", "--yes").returncode not in (0, 3)
    assert before == everything(home.old)
    (home.root.parent / "backups").unlink()
    assert 0 == datad("migrate", "--finish", "--yes").returncode


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--compat", "copy"], "--compat must be one of none, symlink, mirror"),
        (["--both-ways"], "--both-ways goes with --compat mirror"),
        (["--quarantine"], "--quarantine goes with --finish"),
        (["--finish", "--undo"], "stand alone"),
        (["--undo", "--from", "x"], "stand alone"),
    ],
)
def test_odd_options_are_refused(datad: Datad, home: Home, words: list[str], why: str) -> None:
    """Exit code 2, one line."""
    done = datad("migrate", *words, "--yes")
    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert why in done.stderr


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (".symbiont/data", "is the data directory itself"),
        (".symbiont", "holds the data directory"),
        (".symbiont/data/state", "lies in the data directory"),
        ("loop", "is a loop of symbolic links"),
        ("none", "can't be read: No such file or directory"),
    ],
)
def test_places_that_cant_be_sources_are_refused(datad: Datad, home: Home, place: str, why: str) -> None:
    """Exit code 1, one line, and nothing is touched."""
    (home.root / "state").mkdir(parents=True)
    (home.base / "loop").symlink_to("loop")
    done = datad("migrate", "--from", home.base / place, "--yes")
    assert (1, 1, True) == (done.returncode, done.stderr.count("\n"), why in done.stderr)
    assert not home.target.journal_path.exists()


def test_a_full_disk_in_the_middle(datad: Datad, home: Home, tmp_path: Path) -> None:
    """Exit code 1 and what to do; nothing is half written, and the next run goes on with the rest."""
    for number in range(300):
        write(home.old / f"{agent(number)}.json", context(os.urandom(400).hex()))
    with small_disk(tmp_path / "disk", "1800k") as disk:
        config = tmp_path / "datad.toml"
        config.write_text(f'root_data_dir = "{disk}/data"\ndaemon_dir = "{tmp_path}/datad"\n'
                          f'enable_compression = false\n[backup]\nrepository = "{tmp_path}/repository"\n')  # fmt: skip
        done = datad("--config", config, "migrate", "--yes")
        assert (1, 1) == (done.returncode, done.stderr.count("\n"))
        assert "are needed there" in done.stderr
        (disk / "filler").write_bytes(bytes(1 << 20))
        for path in list(home.old.iterdir())[::2]:
            path.rename(tmp_path / path.name)
        _fills_up_on_the_way(datad, config, disk, home)
        for path in home.old.iterdir():
            path.unlink()


def _fills_up_on_the_way(datad: Datad, config: Path, disk: Path, home: Home) -> None:
    """The room that there was at the beginning is taken by somebody else meanwhile."""
    from symbiont_datad.migrate import migration

    real = migration._Migrating._refuse_full
    try:
        migration._Migrating._refuse_full = lambda *_: None  # type: ignore[method-assign]
        done = datad("--config", config, "migrate", "--yes")
    finally:
        migration._Migrating._refuse_full = real  # type: ignore[method-assign]
    assert 1 == done.returncode
    assert "no space is left" in done.stderr
    agents = disk / "data" / "state" / "agents"
    assert [] == (unloadable(agents, ".json") if agents.exists() else [])
    assert [] == list(disk.glob("data/.quarantine/*/staged/*"))
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    assert 0 == datad("--config", config, "migrate", "--yes").returncode
    assert [] == lost(home.old, disk)
    assert [] == unloadable(agents, ".json")


def test_config_migrate_and_undo(datad: Datad, home: Home) -> None:
    """The difference is shown, without the lines around it; a `.bak` stays; twice is once; --undo takes it back."""
    file = home.base / "project" / "symbiont.toml"
    text = (
        '# mine\n[context]\nstorage_path = "./data/contexts"  # where\nbackup_count = 7\n[http]\ndev_token = "geheim"\n'
    )
    write(file, text.encode(), NOW)
    shown = datad("config", "migrate", "--dry-run")
    assert (0, text) == (shown.returncode, file.read_text())
    assert '-storage_path = "./data/contexts"  # where\n' in shown.stdout
    assert f'+root_data_dir = "{home.root}"  # where\n' in shown.stdout
    assert "geheim" not in shown.stdout
    assert f"to do: {home.old} has not come over" in shown.stdout
    datad("migrate", "--yes")
    assert 3 == datad("config", "migrate").returncode
    done = datad("config", "migrate", "--yes", "--json").document
    assert [str(file), str(home.root.parent / "datad.toml")] == [one["path"] for one in done["files"]]
    assert text == Path(done["files"][0]["backup"]).read_text()
    assert text.replace('storage_path = "./data/contexts"', f'root_data_dir = "{home.root}"') == file.read_text()
    assert "7" == datad("config", "show", "--changed").stdout.split("backup_count")[1].split()[1]
    assert "nothing to rewrite\n" == datad("config", "migrate", "--yes").stdout
    assert 0 == datad("migrate", "--undo").returncode
    assert (text, NOW) == (file.read_text(), file.stat().st_mtime)
    assert not file.with_name("symbiont.toml.bak").exists()
    assert not (home.root.parent / "datad.toml").exists()


def test_settings_that_were_edited_since_stay(datad: Datad, home: Home) -> None:
    """They are listed, with where the old ones are."""
    file = home.base / "project" / "symbi.toml"
    file.write_text('[storage]\ncontext_path = "./agent_storage"\n')
    datad("config", "migrate", "--yes")
    file.write_text(file.read_text() + "# edited\n")
    done = datad("migrate", "--undo")
    assert 3 == done.returncode
    assert f"written since, and kept: {file}" in done.stdout
    assert (True, True) == (file.read_text().endswith("# edited\n"), file.with_name("symbi.toml.bak").exists())


def test_settings_that_dont_fit_are_refused(datad: Datad, home: Home) -> None:
    """Nothing is written then; so it is with a file that can't be read."""
    file = home.base / "project" / "mine.toml"
    file.write_text('[context]\nstorage_path = "x"\nbackup_count = 0\n')
    done = datad("config", "migrate", file, "--yes")
    assert (2, True) == (done.returncode, "backup_count = 0" in done.stderr)
    assert "storage_path" in file.read_text()
    file.write_text("[context\n")
    assert 2 == datad("config", "migrate", file, "--yes").returncode
    assert 1 == datad("config", "migrate", home.base / "none.toml").returncode


def test_an_undo_is_told_before_and_after(datad: Datad, home: Home) -> None:
    """The places that come back, the settings, and the files; as text and as JSON."""
    file = write(home.base / "project/symbiont.toml", b'[context]\nstorage_path = "./data/contexts"\n', NOW)
    assert 0 == datad("migrate", "--compat", "symlink", "--yes").returncode
    datad("config", "migrate", "--yes")
    told = datad("migrate", "--undo", "--dry-run").stdout
    assert "would take back 3 files, and restore 0 that were overwritten" in told
    assert f"would put {home.old}.before-migration back as {home.old}\n" in told
    assert f"would restore {file}\n" in told
    planned = datad("migrate", "--undo", "--dry-run", "--json").document
    assert (True, 3, [str(home.old)]) == (planned["dry_run"], planned["files"], planned["places"])
    assert str(file) in planned["settings"]
    done = datad("migrate", "--undo", "--json").document
    assert (False, 3, []) == (done["dry_run"], done["removed"], done["findings"])
    assert home.old.is_dir()


def test_of_many_findings_some_are_told(datad: Datad, home: Home) -> None:
    """And how many more there are; of an unsure place, how to bring it over."""
    for number in range(25):
        (home.old / f"link {number:02}").symlink_to("nowhere")
    asked = datad("migrate")
    assert "… and 5 more; --dry-run lists all" in asked.stdout
    assert 25 == datad("migrate", "--dry-run").stdout.count("legacy link")
    assert "… and 5 more; `symbiont-datad status` and --json tell of them" in datad("migrate", "--yes").stdout
    finished = datad("migrate", "--finish", "--quarantine")
    assert (3, True) == (finished.returncode, "would do " in finished.stdout)
    assert "… and 5 more stay" in finished.stdout


def test_a_place_that_is_named_comes_over(datad: Datad, home: Home) -> None:
    """Relative to where it is typed; what is found elsewhere is left. Asked again, what came before is known."""
    other = home.base / "project" / "other"
    write(other / f"{C}.json", context("c"), NOW - HOUR)
    assert 0 == datad("migrate", "--from", "other", "--yes").returncode
    assert [f"{C}.json.gz"] == os.listdir(home.agents)
    write(other / f"{B}.json", context("b"), NOW - HOUR)
    asked = datad("migrate", "--from", "other", "--json")
    assert (3, "") == (asked.returncode, asked.stdout)
    assert "--yes to bring it over" in asked.stderr
    assert "1 files to bring" in datad("migrate", "--from", "other").stdout


def test_what_is_not_sure_is_only_shown(datad: Datad, home: Home) -> None:
    """With how to bring it over; settings that can't be read are named, and change nothing."""
    shutil.rmtree(home.old)
    project = home.base / "project"
    write(project / "agent_storage" / "mine.txt", b"x")
    write(project / "symbiont.toml", b"[context\n")
    done = datad("migrate", "--yes")
    assert (0, 1) == (done.returncode, done.stdout.count("; --from brings it over"))
    assert "no legacy data was found" not in done.stdout
    assert f"symbiont-datad: {project}/symbiont.toml: can't be read: " in done.stderr
    rewritten = datad("config", "migrate", "--yes")
    assert f"{project}/symbiont.toml: can't be read, so it stays: " in rewritten.stdout + rewritten.stderr
    assert b"[context\n" == (project / "symbiont.toml").read_bytes()


def test_a_dataset_that_gets_another_name_is_told_before(datad: Datad, home: Home) -> None:
    """In short, and in the plan."""
    place, old = home.root / "vector_db" / "collections" / "t.lance", home.base / "project" / "data" / "vector_db"
    for base, text, at in ((place, b"tree", NOW - 90 * HOUR), (old / "t.lance", b"old", NOW - HOUR)):
        write(base / "data" / "x.lance", text, at)
        write(base / "_versions" / "1.manifest", text, at)
    where, to = "vector_db/collections/t.lance", f"vector_db/collections/t-{NOW - 90 * HOUR}.lance"
    assert f"  {where} becomes {to}: " in datad("migrate").stdout
    assert f"would rename {where} to {to}: " in datad("migrate", "--dry-run").stdout
    assert not (home.root / to).exists()


def test_an_end_is_told_of_before_and_after(datad: Datad, home: Home) -> None:
    """As text and as JSON; without `--yes` nothing is done."""
    datad("migrate", "--yes")
    planned = datad("migrate", "--finish", "--quarantine", "--dry-run", "--json").document
    assert (True, None, []) == (planned["dry_run"], planned["snapshot"], planned["left"])
    asked = datad("migrate", "--finish", "--quarantine", "--json")
    assert (3, "") == (asked.returncode, asked.stdout)
    assert home.old.is_dir()
    done = datad("migrate", "--finish", "--quarantine", "--yes")
    assert (0, True) == (done.returncode, done.stdout.startswith("finished: 3 files, "))
    assert "are gone from the old place; now in .quarantine/" in done.stdout
    assert not home.old.exists()
