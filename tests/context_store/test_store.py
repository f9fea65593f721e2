"""The store saves whole contexts under the runtime's names, and says when what it loads is not the newest."""

import gzip
import json
import os
import subprocess
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad import ContextStore, FilePersistenceConfig, new_context
from symbiont_datad.context_store import ContextWarning, DamagedContext, InvalidContext, NoContext, store
from symbiont_datad.context_store.document import written
from symbiont_datad.errors import Locked, SettingsError
from symbiont_datad.formats.age import new_identity, recipient_of, seal
from symbiont_datad.formats.context import Damage, Verdict, judge
from symbiont_datad.fsops.agent_lock import LOCK
from tests import contexts
from tests.conftest import AsNobody

AGENT = contexts.agent_id("agent")
MODES = pytest.mark.parametrize("zipped", [True, False], ids=["gzip", "plain"])


def config(root: Path, zipped: bool = True, **other: Any) -> FilePersistenceConfig:
    """Settings of a store."""
    return FilePersistenceConfig(root_data_dir=root, enable_compression=zipped, **other)


def agents(root: Path) -> Path:
    """Where the contexts are."""
    return root / "state/agents"


def names(root: Path) -> list[str]:
    """What lies among the contexts, with `A` for the agent's id."""
    return sorted(name.replace(AGENT, "A") for name in os.listdir(agents(root)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The store's clock: a list of one number, seconds since the epoch."""
    now = [contexts.AT]

    clock = SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(store, "time", clock)
    return now


@MODES
def test_what_is_saved_is_loaded(tmp_path: Path, zipped: bool) -> None:
    """Every field, those that this version doesn't know as well; the directories are made."""
    one = ContextStore(config(tmp_path / "data", zipped))
    context = contexts.context("agent", newer={"field": [1, None]})
    one.save(context)
    loaded = one.load(AGENT)
    expected = agents(tmp_path / "data") / (f"{AGENT}.json.gz" if zipped else f"{AGENT}.json")
    assert (context, expected, "") == (loaded.context, loaded.path, loaded.note)
    assert [AGENT] == one.list()
    assert (True, False) == (one.exists(AGENT), one.exists(uuid.uuid4()))


@MODES
def test_files_are_those_that_the_runtime_writes(tmp_path: Path, zipped: bool) -> None:
    """serde_json's pretty printing, gzip without a name or time; what Python's printer does at the same indent."""
    context = contexts.context("agent", text='naïve ✓ 😀 "quoted" \\ \n\t\x01\x7f </script>')
    ContextStore(config(tmp_path, zipped)).save(context)
    data = agents(tmp_path).joinpath(f"{AGENT}.json{'.gz' if zipped else ''}").read_bytes()
    assert contexts.plain(context) == (gzip.decompress(data) if zipped else data)
    if zipped:
        assert (b"\x1f\x8b\x08", bytes(5)) == (data[:3], data[3:8])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('aé"\\\n', max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_any_variables_survive(value: Any) -> None:
    """What is written is JSON of the runtime's form, is a whole context, and reads back as it was."""
    context = contexts.context("agent")
    context["memory"]["working_memory"]["variables"] = {"x": value}
    agent, text = written(context)
    assert (AGENT, context) == (agent, json.loads(text))
    assert json.dumps(json.loads(text), indent=2, ensure_ascii=False).encode() == text
    assert judge(text, gzip=False).kind is None


@MODES
def test_what_the_runtime_wrote_is_loaded(tmp_path: Path, zipped: bool) -> None:
    """Contexts with every kind of item, as the runtime leaves them."""
    context = contexts.context("agent")
    agents(tmp_path).mkdir(parents=True)
    path = agents(tmp_path) / f"{AGENT}.json{'.gz' if zipped else ''}"
    path.write_bytes(contexts.zipped(context) if zipped else contexts.plain(context))
    assert context == ContextStore(config(tmp_path, zipped)).load(AGENT).context


def test_new_context_is_one_that_the_runtime_loads(tmp_path: Path) -> None:
    """With an id of its own, or with the one that is given, in any spelling."""
    assert new_context()["agent_id"] != new_context()["agent_id"]
    assert AGENT == new_context(AGENT.upper())["agent_id"] == new_context(uuid.UUID(AGENT))["agent_id"]
    _, text = written(new_context(AGENT))
    assert Verdict(None) == Verdict(judge(text, gzip=False).kind)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"metadata": {"n": 1}}, "$.metadata"),
        ({"agent_id": "support-bot"}, "$.agent_id"),
        ({"updated_at": 12.5}, "$.updated_at"),
        ({"conversation_history": [{"role": "User"}]}, "$.conversation_history"),
        ({"memory": None}, "$.memory"),
        ({"note": float("nan")}, "JSON"),
        ({"note": "\ud800"}, "JSON"),
        ({"note": object()}, "JSON"),
    ],
)
def test_what_the_runtime_would_not_load_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    """One such context keeps the runtime from starting: it is refused, by the name of the field, before it is there."""
    one = ContextStore(config(tmp_path))
    one.save(contexts.context("agent"))
    before = agents(tmp_path).joinpath(f"{AGENT}.json.gz").read_bytes()
    with pytest.raises(InvalidContext, match=".*" + complaint.replace("$", r"\$")):
        one.save({**contexts.context("agent"), **change})
    assert (before, ["A.json.gz"]) == (agents(tmp_path).joinpath(f"{AGENT}.json.gz").read_bytes(), names(tmp_path))


@pytest.mark.parametrize("agent", ["../../etc/passwd", "", "support-bot"])
def test_ids_are_uuids(tmp_path: Path, agent: str) -> None:
    """No other name is one that the runtime lists, and none leads anywhere else."""
    one = ContextStore(config(tmp_path))
    for call in (one.load, one.delete, one.exists, new_context, lambda a: one.edit(a).__enter__()):
        with pytest.raises(InvalidContext, match="UUID"):
            call(agent)


# Backups


@MODES
def test_the_newest_backups_stay(tmp_path: Path, clock: list[float], zipped: bool) -> None:
    """Under the runtime's names, each the file that was there; `backup_count` of them, also of what others left."""
    one = ContextStore(config(tmp_path, zipped, backup_count=2))
    stem = "A.json.backup" if zipped else "A.backup"
    agents(tmp_path).mkdir(parents=True)
    for seconds in (5, 6, 7):
        agents(tmp_path).joinpath(f"{stem.replace('A', AGENT)}.{seconds}.json").write_bytes(b"old")
    for number in range(4):
        one.save(contexts.context("agent", text=str(number)))
        clock[0] += 10
    first = int(contexts.AT)
    context = f"A.json{'.gz' if zipped else ''}"
    assert sorted([context, f"{stem}.{first + 20}.json", f"{stem}.{first + 30}.json"]) == names(tmp_path)
    backup = agents(tmp_path).joinpath(f"{stem.replace('A', AGENT)}.{first + 30}.json").read_bytes()
    assert contexts.plain(contexts.context("agent", text="2")) == (gzip.decompress(backup) if zipped else backup)


def test_the_backup_of_this_save_stays_when_the_clock_was_set_back(tmp_path: Path, clock: list[float]) -> None:
    """What was saved while it was ahead bears later times, and is older all the same."""
    one = ContextStore(config(tmp_path, backup_count=2))
    for number in range(3):
        one.save(contexts.context("agent", text=str(number)))
        clock[0] += 10
    clock[0] -= 3600
    one.save(contexts.context("agent", text="set back"))
    backup = agents(tmp_path) / f"{AGENT}.json.backup.{int(clock[0])}.json"
    assert contexts.plain(contexts.context("agent", text="2")) == gzip.decompress(backup.read_bytes())
    assert 3 == len(names(tmp_path))


def test_backups_of_other_processes_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is not listed at each save, but now and then."""
    one, two = (ContextStore(config(tmp_path, backup_count=1)) for _ in range(2))
    one.save(contexts.context("agent"))
    two.save(contexts.context("agent", text="two"))
    agents(tmp_path).joinpath(f"{AGENT}.json.backup.7.json").write_bytes(b"")
    monkeypatch.setattr(one._backups, "_listed_at", 0.0)
    one.save(contexts.context("agent", text="three"))
    assert 2 == len(names(tmp_path))


@MODES
def test_a_damaged_context_is_loaded_from_its_newest_good_backup(tmp_path: Path, zipped: bool) -> None:
    """And it says so: in the result and by a warning, with what is wrong and how old the backup is."""
    one = ContextStore(config(tmp_path, zipped))
    one.save(contexts.context("agent", text="before"))
    one.save(contexts.context("agent", text="now"))
    newest = one.load(AGENT).path
    stem = f"{AGENT}.json.backup" if zipped else f"{AGENT}.backup"
    (good,) = agents(tmp_path).glob(f"{stem}.*.json")
    agents(tmp_path).joinpath(f"{stem}.99999999999.json").write_bytes(good.read_bytes()[:40])
    newest.write_bytes(newest.read_bytes()[:60])
    os.utime(newest, (1, 1))  # long ago: nobody is writing it
    with pytest.warns(ContextWarning, match="truncated") as warned:
        loaded = one.load(AGENT)
    assert (contexts.context("agent", text="before"), good) == (loaded.context, loaded.path)
    assert "as of 2026-11-17" in loaded.note
    assert __file__ == warned[0].filename
    good.unlink()
    with pytest.raises(DamagedContext, match="none of its 1 backups is whole"):
        one.load(AGENT)


def test_a_context_that_is_just_being_written_is_waited_for(tmp_path: Path) -> None:
    """The runtime truncates, then writes: who loads in between gets the new state and no backup."""
    one = ContextStore(config(tmp_path, zipped=False))
    one.save(contexts.context("agent", text="before"))
    one.save(contexts.context("agent", text="before"))
    data = contexts.plain(contexts.context("agent", text="now"))
    with open(agents(tmp_path) / f"{AGENT}.json", "wb") as file:
        file.write(data[:500])
        file.flush()

        def finish() -> None:
            time.sleep(0.1)
            file.write(data[500:])
            file.flush()

        thread = threading.Thread(target=finish)
        thread.start()
        loaded = one.load(AGENT)
        thread.join()
    assert (contexts.context("agent", text="now"), "") == (loaded.context, loaded.note)


def test_a_context_in_the_other_mode_is_loaded_and_told(tmp_path: Path) -> None:
    """A store with compression finds what one without it has saved; saving leaves the other file to the daemon."""
    ContextStore(config(tmp_path, zipped=False)).save(contexts.context("agent"))
    one = ContextStore(config(tmp_path))
    with pytest.warns(ContextWarning, match=r"\.json\.gz is not there; loaded instead: .*\.json, as of"):
        assert contexts.context("agent") == one.load(AGENT).context
    one.save(contexts.context("agent", text="now"))
    assert ["A.json", "A.json.gz"] == names(tmp_path)
    assert "" == one.load(AGENT).note
    wrong = agents(tmp_path) / f"{AGENT}.json.gz"
    wrong.write_bytes(contexts.plain(contexts.context("agent")))
    with pytest.warns(ContextWarning, match="the runtime does not load it"):
        one.load(AGENT)


def test_there_may_be_no_context(tmp_path: Path) -> None:
    """No directory, no file, or nothing but backups of an agent that was deleted: the error says so."""
    one = ContextStore(config(tmp_path / "none", auto_create_dirs=False))
    assert [] == one.list()
    for call in (one.load, one.delete, lambda agent: one.edit(agent).__enter__()):
        with pytest.raises((NoContext, FileNotFoundError)):
            call(AGENT)
    two = ContextStore(config(tmp_path / "data"))
    for call in (two.load, two.delete, lambda agent: two.edit(agent).__enter__()):
        with pytest.raises(NoContext, match=AGENT):
            call(AGENT)
    agents(tmp_path / "data").joinpath(f"{AGENT}.json.backup.5.json").write_bytes(contexts.zipped(contexts.context()))
    with pytest.raises(NoContext):
        two.load(AGENT)
    assert [] == two.list()


# Editing and deleting


def test_edit_saves_what_the_block_makes(tmp_path: Path, clock: list[float]) -> None:
    """With the time of the change; an exception leaves everything as it was; a new agent begins when asked for."""
    one = ContextStore(config(tmp_path))
    with one.edit(AGENT, create=True) as context:
        context["metadata"]["mood"] = "curious"
    clock[0] += 60
    with one.edit(AGENT) as context:
        context["metadata"]["mood"] += "!"
    now = one.load(AGENT).context
    assert ("curious!", contexts.system_time(clock[0])) == (now["metadata"]["mood"], now["updated_at"])

    def fail() -> None:
        with one.edit(AGENT) as context:
            context["metadata"]["mood"] = "lost"
            raise LookupError

    def rename() -> None:
        with one.edit(AGENT) as context:
            context["agent_id"] = str(uuid.uuid4())

    with pytest.raises(LookupError):
        fail()
    with pytest.raises(InvalidContext, match="must stay"):
        rename()
    assert now == one.load(AGENT).context


def test_an_edit_in_an_edit_is_refused(tmp_path: Path) -> None:
    """The same thread would wait for itself; another agent is free."""
    one, two = (ContextStore(config(tmp_path)) for _ in range(2))
    one.save(contexts.context("agent"))
    one.save(contexts.context("other"))
    with (
        one.edit(AGENT) as context,
        two.edit(contexts.agent_id("other")),
        pytest.raises(RuntimeError, match="in an edit"),
    ):
        two.save(context)
    with two.edit(AGENT):
        pass


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread holds the agent and does not let go."""
    monkeypatch.setattr(store, "_PATIENCE_S", 0.05)
    one = ContextStore(config(tmp_path))
    one.save(contexts.context("agent"))
    raised: list[Exception] = []

    def save() -> None:
        try:
            one.save(contexts.context("agent"))
        except Locked as error:
            raised.append(error)

    with one.edit(AGENT):
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
    assert AGENT in str(raised[0])


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """Eight threads count together in one context, through one store."""
    one = ContextStore(config(tmp_path))
    one.save(contexts.context("agent", metadata={"count": "0"}))

    def count() -> None:
        for _ in range(10):
            with one.edit(AGENT) as context:
                context["metadata"]["count"] = str(int(context["metadata"]["count"]) + 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "80" == one.load(AGENT).context["metadata"]["count"]


def test_deleted_agents_are_in_quarantine(tmp_path: Path) -> None:
    """The context and its backups, in every form, whole and with a record; other agents and archives stay."""
    one = ContextStore(config(tmp_path))
    one.save(contexts.context("agent"))
    one.save(contexts.context("agent", text="now"))
    one.save(contexts.context("other"))
    ContextStore(config(tmp_path, zipped=False)).save(contexts.context("agent", text="plain"))
    (agents(tmp_path) / f"archives/{AGENT}").mkdir(parents=True)
    before = {path.name: path.read_bytes() for path in agents(tmp_path).glob(f"{AGENT}*")}
    moved = one.delete(AGENT)
    records = [json.loads((path.parent / "record.json").read_text()) for path in moved]
    assert before == {record["name"]: path.read_bytes() for record, path in zip(records, moved, strict=True)}
    assert {"context_deleted"} == {record["kind"] for record in records}
    assert ([contexts.agent_id("other")], True) == (one.list(), (agents(tmp_path) / f"archives/{AGENT}").exists())


# Rights and places


def test_mode_and_owner_stay(tmp_path: Path) -> None:
    """A new context gets the mode that the umask leaves, one that is there keeps its own, and so do its backups."""
    one = ContextStore(config(tmp_path))
    old = os.umask(0o027)
    try:
        one.save(contexts.context("agent"))
    finally:
        os.umask(old)
    path = agents(tmp_path) / f"{AGENT}.json.gz"
    assert 0o640 == path.stat().st_mode & 0o777
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    one.save(contexts.context("agent"))
    for file in agents(tmp_path).iterdir():
        assert 0o604 == file.stat().st_mode & 0o777
        assert os.geteuid() != 0 or (1234, 2345) == (file.stat().st_uid, file.stat().st_gid)


def test_as_root_what_is_made_belongs_to_the_directorys_owner(tmp_path: Path) -> None:
    """An agent's tree does not fill up with files of root's that the agent can't write to."""
    if os.geteuid() != 0:
        pytest.skip("only root makes files for others")
    one = ContextStore(config(tmp_path))
    one.save(contexts.context("other"))
    for folder in (agents(tmp_path), tmp_path / "state"):
        os.chown(folder, 1234, 2345)
    (tmp_path / "state" / LOCK).unlink()
    one.save(contexts.context("agent"))
    for file in (agents(tmp_path) / f"{AGENT}.json.gz", tmp_path / "state" / LOCK):
        assert (1234, 2345) == (file.stat().st_uid, file.stat().st_gid)


def test_another_users_context_is_not_taken_over(open_path: Path, as_nobody: AsNobody) -> None:
    """A file that belonged to the runtime's user would not be writable for it any more."""
    ContextStore(config(open_path / "data")).save(contexts.context("agent"))
    for folder in (agents(open_path / "data"), open_path / "data/state", open_path / "data/state" / LOCK):
        folder.chmod(0o777)
    with pytest.raises(PermissionError, match="belongs to uid 0"):
        as_nobody(lambda: ContextStore(config(open_path / "data")).save(contexts.context("agent", text="mine")))
    assert contexts.context("agent") == ContextStore(config(open_path / "data")).load(AGENT).context


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Neither a link in the place of a context nor one in the place of a directory leads a store astray."""
    one = ContextStore(config(tmp_path / "data"))
    one.save(contexts.context("other"))
    secret = tmp_path / "secret"
    secret.write_bytes(contexts.zipped(contexts.context("agent")))
    link = agents(tmp_path / "data") / f"{AGENT}.json.gz"
    link.symlink_to(secret)
    for call in (lambda: one.load(AGENT), lambda: one.save(contexts.context("agent", text="x"))):
        with pytest.raises(OSError, match="symbolic links"):
            call()
    agents(tmp_path / "data").rename(tmp_path / "elsewhere")
    agents(tmp_path / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        one.load(contexts.agent_id("other"))
    assert contexts.zipped(contexts.context("agent")) == secret.read_bytes()


def test_nothing_piles_up(tmp_path: Path) -> None:
    """Not one file is left among the contexts but contexts and backups, and one empty lock file outside of it."""
    one = ContextStore(config(tmp_path))
    for number in range(20):
        one.save(contexts.context(f"agent {number}"))
        one.save(contexts.context(f"agent {number}"))
    assert 40 == len(os.listdir(agents(tmp_path)))
    assert [0] == [path.stat().st_size for path in (tmp_path / "state").iterdir() if path.is_file()]


# Sealed


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file."""
    path = tmp_path / "key"
    path.write_text(new_identity() + "\n")
    path.chmod(0o600)
    return path


@MODES
def test_sealed_contexts_are_opened_by_stock_age(tmp_path: Path, key: Path, zipped: bool) -> None:
    """`age -d -i KEY`, then gunzip if compression is on: the very JSON. The runtime lists nothing of it."""
    one = ContextStore(config(tmp_path / "data", zipped, enable_encryption=True), key=key)
    one.save(contexts.context("agent"))
    one.save(contexts.context("agent", text="now"))
    path = agents(tmp_path / "data") / f"{AGENT}.json{'.gz' if zipped else ''}.age"
    (backup,) = agents(tmp_path / "data").glob("*.backup.*.json.age")
    for file, text in ((path, "now"), (backup, "naïve ✓")):
        done = subprocess.run(["age", "-d", "-i", key, file], capture_output=True, check=True)
        plain = gzip.decompress(done.stdout) if zipped else done.stdout
        assert contexts.plain(contexts.context("agent", text=text)) == plain
    assert contexts.context("agent", text="now") == one.load(AGENT).context
    assert [AGENT] == one.list()
    assert [] == [name for name in names(tmp_path / "data") if name.endswith((".json", ".gz"))]


def test_turning_encryption_on_leaves_nothing_readable(tmp_path: Path, key: Path, clock: list[float]) -> None:
    """The context that lay open is a sealed backup afterwards; turned off, the sealed one is a backup."""
    data = tmp_path / "data"
    ContextStore(config(data)).save(contexts.context("agent", text="open"))
    sealed = ContextStore(config(data, enable_encryption=True), key=key)
    with pytest.warns(ContextWarning):
        assert "open" == sealed.load(AGENT).context["metadata"]["name"]
    sealed.save(contexts.context("agent", text="closed"))
    at = int(clock[0])
    assert [f"A.json.backup.{at}.json.age", "A.json.gz.age"] == names(data)
    clock[0] += 10
    ContextStore(config(data), key=key).save(contexts.context("agent", text="open again"))
    assert [f"A.json.backup.{at}.json.age", f"A.json.backup.{at + 10}.json.age", "A.json.gz"] == names(data)


def test_sealed_contexts_need_their_key(tmp_path: Path, key: Path) -> None:
    """A missing, open or other key is an error that names it; nothing is saved in the open instead."""
    data = tmp_path / "data"
    settings = config(data, enable_encryption=True)
    ContextStore(settings, key=key).save(contexts.context("agent"))
    other = tmp_path / "other"
    other.write_text(new_identity() + "\n")
    for wrong, complaint in ((None, "without a key"), (tmp_path / "none", "can't be read"), (other, "mode")):
        one = ContextStore(settings, key=wrong)
        with pytest.raises(SettingsError, match=complaint):
            one.load(AGENT)
        with pytest.raises(SettingsError):
            one.save(contexts.context("agent"))
    other.chmod(0o600)
    with pytest.raises(SettingsError, match="sealed to another key"):
        ContextStore(settings, key=other).load(AGENT)
    assert ["A.json.gz.age"] == names(data)


def test_a_broken_seal_is_damage(tmp_path: Path, key: Path) -> None:
    """A flipped byte, or a cut: the newest backup is loaded."""
    one = ContextStore(config(tmp_path / "data", enable_encryption=True), key=lambda: key.read_text().strip())
    one.save(contexts.context("agent", text="before"))
    one.save(contexts.context("agent", text="now"))
    path = one.load(AGENT).path
    data = path.read_bytes()
    for broken, words in ((data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], "not sealed"), (data[:100], "truncated")):
        path.write_bytes(broken)
        os.utime(path, (1, 1))  # long ago: nobody is writing it
        with pytest.warns(ContextWarning, match=words):
            assert "before" == one.load(AGENT).context["metadata"]["name"]
    path.write_bytes(seal(b"[]", recipient_of(key.read_text().strip())))
    os.utime(path, (1, 1))
    with pytest.warns(ContextWarning, match="wrong type"):
        one.load(AGENT)
    assert Damage.WRONG_TYPE == judge(b"[]").kind


def test_settings_of_the_daemon_are_those_of_the_store(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root, mode and key come from where the daemon has them."""
    for name, value in {"ROOT_DATA_DIR": tmp_path / "data", "ENCRYPTION__KEY_FILE": key, "ENABLE_ENCRYPTION": 1,
                        "ENABLE_COMPRESSION": 0}.items():  # fmt: skip
        monkeypatch.setenv(f"SYMBIONT_DATAD_{name}", str(value))
    monkeypatch.setenv("HOME", str(tmp_path))
    ContextStore.from_settings().save(contexts.context("agent"))
    assert ["A.json.age"] == names(tmp_path / "data")
    assert contexts.context("agent") == ContextStore.from_settings().load(AGENT).context


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 900 + "]" * 900])
def test_json_that_python_cant_hold_is_damage(tmp_path: Path, value: str) -> None:
    """A number of thousands of digits, values nested in each other: an error of ours, or the context itself."""
    root = tmp_path / "data"
    store = ContextStore(FilePersistenceConfig(root_data_dir=root, enable_compression=False))
    context = new_context()
    store.save(context)
    (file,) = (root / "state/agents").glob("*.json")
    file.write_text(file.read_text().replace('"variables": {', f'"variables": {{"deep": {value}, ').replace(", }", "}"))
    os.utime(file, (1e9, 1e9))
    try:
        loaded = store.load(context["agent_id"])
    except DamagedContext:
        pass
    else:
        assert "deep" in loaded.context["memory"]["working_memory"]["variables"]


def test_an_edit_of_a_damaged_context_begins_with_its_backup(tmp_path: Path, clock: list[float]) -> None:
    """And says so; what is saved is whole again."""
    one = ContextStore(config(tmp_path / "data"))
    for turn in ("first", "second"):
        one.save(contexts.context(text=turn, agent_id=AGENT))
        clock[0] += 60
    (agents(tmp_path / "data") / f"{AGENT}.json.gz").write_bytes(b"")
    os.utime(agents(tmp_path / "data") / f"{AGENT}.json.gz", (contexts.AT, contexts.AT))
    with pytest.warns(ContextWarning), one.edit(AGENT) as context:
        context["metadata"] = {"edited": "yes"}
    assert {"edited": "yes"} == one.load(AGENT).context["metadata"]


def test_where_there_is_no_directory_there_is_no_context(tmp_path: Path) -> None:
    """Asking makes none; and what else lies among contexts is no agent."""
    one = ContextStore(config(tmp_path / "data"))
    assert (False, []) == (one.exists(AGENT), list(one.list()))
    assert not (tmp_path / "data").exists()
    one.save(contexts.context(agent_id=AGENT))
    for name in ("notes.json.gz", f"{AGENT.upper()}.json.gz", f"{{{AGENT}}}.json.gz"):
        (agents(tmp_path / "data") / name).write_bytes(b"")
    assert [AGENT] == list(one.list())
