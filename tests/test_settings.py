"""Settings come from several sources, know their origin, and bad ones are refused with one line each."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from symbiont_datad import FilePersistenceConfig, settings_sources
from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.quantities import Share
from symbiont_datad.settings import Loaded, Settings, dotted, leaves, load, undotted
from symbiont_datad.settings_file import example_toml, tables
from symbiont_datad.settings_types import unit_of
from tests.conftest import AsNobody
from tests.support import run_as

ROOT = Path(__file__).parent.parent


class Sources:
    """The sources of settings in a directory of their own: a home, a file, credentials and an environment."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.file = directory / "datad.toml"
        self.credentials = directory / "credentials"
        self.home.mkdir()
        self.credentials.mkdir()
        self.environ = {"HOME": str(self.home), "CREDENTIALS_DIRECTORY": str(self.credentials)}

    def load(
        self,
        toml: str | bytes | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        overrides: Mapping[str, object] = MappingProxyType({}),
    ) -> Loaded:
        """Load with `toml` as the file that `--config` names, and `environ` as variables without their prefix."""
        if toml is not None:
            self.file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        given = {f"SYMBIONT_DATAD_{name}": value for name, value in environ.items()}
        return load(self.file if toml is not None else None, overrides, self.environ | given)

    def problems(self, *args: Any, **kwargs: Any) -> list[str]:
        """The lines of the refusal, with the file called FILE and its directory DIR."""
        with pytest.raises(SettingsError) as caught:
            self.load(*args, **kwargs)
        assert caught.value.exit_code == ExitCode.USAGE
        text = str(caught.value).replace(str(self.file), "FILE")
        return text.replace(str(self.file.parent), "DIR").splitlines()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Sources that see nothing of the machine's own."""
    monkeypatch.setattr(settings_sources, "SYSTEM_FILE", tmp_path / "etc" / "datad.toml")
    monkeypatch.setattr(settings_sources, "RUN_SECRETS", tmp_path / "run" / "secrets")
    return Sources(tmp_path)


def test_the_seeds_defaults(sources: Sources) -> None:
    """The eleven fields of the seed have its names and defaults."""
    expected = {
        "root_data_dir": sources.home / ".symbiont/data",
        "state_dir": "state",
        "logs_dir": "logs",
        "prompts_dir": "prompts",
        "vector_db_dir": "vector_db",
        "enable_compression": True,
        "enable_encryption": False,
        "backup_count": 3,
        "auto_save_interval": 300,
        "auto_create_dirs": True,
        "dir_permissions": 0o755,
    }
    loaded = sources.load()
    assert expected == {name: getattr(loaded.settings, name) for name in FilePersistenceConfig.model_fields}
    assert {"default"} == set(loaded.origins.values())
    assert loaded.file is None


def test_neighbours_of_the_root(sources: Sources) -> None:
    """The daemon's own directory and the repository lie beside the root, wherever that is."""
    found = sources.load("root_data_dir = '/srv/agents/data'").settings
    assert (Path("/srv/agents/datad"), Path("/srv/agents/backups")) == (found.daemon_dir, found.repository_path())


def test_neighbours_of_a_service(sources: Sources) -> None:
    """Under systemd they lie in the first state directory, unless the user says something else."""
    sources.environ["STATE_DIRECTORY"] = "/var/lib/symbiont:/var/lib/other"
    loaded = sources.load("backup.repository = '/backups'")
    assert Path("/var/lib/symbiont/datad") == loaded.settings.daemon_dir
    assert "/backups" == loaded.settings.backup.repository
    assert ("default", str(sources.file)) == (loaded.origins["daemon_dir"], loaded.origins["backup.repository"])


def test_the_first_source_wins(sources: Sources) -> None:
    """Command line, environment, file, credential, default: each wins over those after it, value by value."""
    (sources.credentials / "symbiont_datad_retention__cache__max_files").write_text("5\n")
    (sources.credentials / "SYMBIONT_DATAD_RETENTION__CACHE__MAX_AGE").write_text("1d")
    loaded = sources.load(
        "[retention.cache]\nmax_bytes = '3MiB'\nmax_age = '2d'\n[guard]\nreconcile_interval = 40\nbackoff_after = 2",
        {"GUARD__RECONCILE_INTERVAL": "30", "GUARD__WATCH": "off"},
        {"guard.watch": "polling", "logging.level": None},
    )
    cache, guard = loaded.settings.retention.cache, loaded.settings.guard
    assert (172_800, 3 * 2**20, 5) == (cache.max_age, cache.max_bytes, cache.max_files)
    assert ("polling", 30, 2) == (guard.watch, guard.reconcile_interval, guard.backoff_after)
    expected = {
        "guard.watch": "command line",
        "guard.reconcile_interval": "environment SYMBIONT_DATAD_GUARD__RECONCILE_INTERVAL",
        "guard.backoff_after": str(sources.file),
        "guard.require_mount": "default",
        "retention.cache.max_age": str(sources.file),
        "retention.cache.max_files": f"credential {sources.credentials}/symbiont_datad_retention__cache__max_files",
        "logging.level": "default",
    }
    assert expected == {name: loaded.origins[name] for name in expected}


def test_text_that_is_no_text_is_refused_like_any_other(sources: Sources) -> None:
    """Bytes of the command line that are no UTF-8 are shown as what they are."""
    (problem,) = sources.problems(overrides={"backup.schedule": "\udcff * * * *"})
    assert '"\\xff" is no field from 0 to 59' in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERMISSIONS", '{"\udc80": "750"}'),
        ("PERMISSIONS", '{"\\ud800": "750"}'),
        ("LOGS__PATTERNS", '["\udcff"]'),
        ("RETENTION__\udcff__MAX_AGE", "1d"),
        ("\udcff", "1"),
    ],
)
def test_a_variable_that_is_no_text_is_refused(sources: Sources, name: str, value: str) -> None:
    """Neither a name nor JSON may have bytes that are no UTF-8."""
    (problem,) = sources.problems(environ={name: value})
    assert problem.endswith(("must be valid JSON when it begins with [ or {", "is not the name of a setting"))
    assert problem.isprintable()


def test_every_leaf_has_an_origin(sources: Sources) -> None:
    """`origins` names exactly the settings that there are, also those with names of the user's own."""
    loaded = sources.load(
        "[permissions]\n'logs/audit' = 0o750\n[retention.'reports/daily']\nmax_files = 3\n"
        "[[layout.directory]]\npath = 'reports'\n[[layout.directory]]\npath = 'reports/daily'\n"
    )
    assert list(loaded.origins) == [leaf.name for leaf in leaves(loaded.settings)]
    mine = {name for name, origin in loaded.origins.items() if origin != "default"}
    assert {'permissions."logs/audit"', 'retention."reports/daily".max_files', "layout.directory"} == mine


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ENABLE_COMPRESSION", "false", False),
        ("DIR_PERMISSIONS", "0750", 0o750),
        ("LOGS__ROTATE_AT", "10MiB", 10 * 2**20),
        ("LOGS__PATTERNS", '["*.log"]', ("*.log",)),
        ("BACKUP__KEEP_WITHIN", "7d", 604_800),
        ("BACKUP__KEEP_DAILY", "14", 14),
        ("LIMITS__INODES__HIGH_WATER", "5%", Share(percent=5)),
        ("GUARD__REQUIRE_MOUNT", "/mnt/x", Path("/mnt/x")),
        ("GUARD__REQUIRE_MOUNT", "true", True),
        ("RETENTION__CACHE__MAX_AGE", "unlimited", None),
        ("RETENTION__HISTORY__MAX_BYTES", "1GiB", 2**30),
        ("BACKUP__SCHEDULE", "15 3 * * MON-FRI", "15 3 * * mon-fri"),
        ("BACKUP__SCHEDULE", "12h", 43_200),
        ("OWNER", "0", 0),
        ("BACKUP__REPOSITORY", "s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_environment_values(sources: Sources, name: str, text: str, expected: object) -> None:
    """Every kind of value can be given as a variable."""
    found: Any = sources.load(environ={name: text}).settings
    for part in name.lower().split("__"):
        found = getattr(found, part)
    assert expected == found


def test_environment_tables(sources: Sources) -> None:
    """Tables and lists are JSON in a variable, and a longer name is more exact than a table."""
    loaded = sources.load(
        environ={
            "PERMISSIONS": '{"logs/audit": "0o700", "reports": "0o711"}',
            "LAYOUT__DIRECTORY": '[{"path": "reports", "max_age": "7d"}]',
            "GUARD": '{"backoff_after": 3, "watch": "off"}',
            "GUARD__WATCH": "polling",
        }
    )
    assert {"logs/audit": 0o700, "reports": 0o711} == loaded.settings.permissions
    assert [("reports", 604_800)] == [(row.path, row.max_age) for row in loaded.settings.layout.directory]
    assert (3, "polling") == (loaded.settings.guard.backoff_after, loaded.settings.guard.watch)
    assert "environment SYMBIONT_DATAD_GUARD" == loaded.origins["guard.backoff_after"]


def test_which_file_is_read(sources: Sources) -> None:
    """The file is that of `--config`, else the variable's, else the user's, else the system's."""
    system = sources.home.parent / "etc/datad.toml"
    own = sources.home / ".symbiont/datad.toml"
    named = sources.home / "named.toml"
    for file in (system, own, named):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    assert sources.file == sources.load("").file
    assert named == sources.load(environ={"CONFIG": "~/named.toml"}).file
    assert own == sources.load().file
    own.unlink()
    assert system == sources.load().file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a = 1\nb == 2", "FILE, line 2, column 4: Invalid value"),
        (b'a = "x', "FILE, line 1, column 7: Unterminated string"),
        (b'ok = 1\nx = "\xff"', "FILE, line 2, column 6: is not UTF-8"),
        (b"a = " + b"[" * 100_000, "FILE: is nested too deeply"),
        (b"a = " + b"9" * 5000, "FILE, line 1, column 5005: Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_toml(sources: Sources, content: bytes, expected: str) -> None:
    """What is wrong with the syntax is told with its place in the file."""
    assert sources.problems(content)[0].startswith(expected)


def test_a_named_file_must_be_there(sources: Sources) -> None:
    """A file that the user names is read or refused, and a directory is no file."""
    with pytest.raises(SettingsError, match=r"none\.toml: can't be read: No such file or directory"):
        load(sources.home / "none.toml", environ=sources.environ)
    assert ["DIR/home: can't be read: Is a directory"] == sources.problems(environ={"CONFIG": str(sources.home)})


def test_an_own_file_that_cannot_be_read_is_refused(sources: Sources) -> None:
    """A default file that is there and can't be read is no reason to go on with other settings."""
    (sources.home / ".symbiont/datad.toml").mkdir(parents=True)
    assert ["DIR/home/.symbiont/datad.toml: can't be read: Is a directory"] == sources.problems()


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("guard.reconcile_interval = 0", "guard.reconcile_interval = 0 (from FILE): must be at least 1 s"),
        ("guard.reconcile_interval = -5", "guard.reconcile_interval = -5 (from FILE): must be at least 1 s"),
        ("auto_save_interval = nan", "auto_save_interval = nan (from FILE): must be a finite number"),
        ("auto_save_interval = inf", "auto_save_interval = inf (from FILE): must be a finite number"),
        ("auto_save_interval = 1979-05-27", "auto_save_interval = 1979-05-27 (from FILE): must be a duration"),
        ("state.settle = '-1s'", 'state.settle = "-1s" (from FILE): must be a duration'),
        ("dir_permissions = 0o1000000", "dir_permissions = 0o1000000 (from FILE): must be a mode from 0 to 0o7777"),
        ("dir_permissions = '0o555'", 'dir_permissions = "0o555" (from FILE): must let the owner read, write and'),
        ("file_permissions = 0o444", "file_permissions = 0o444 (from FILE): must let the owner read and write"),
        ("permissions.logs = 0o400", "permissions.logs = 0o400 (from FILE): must let the owner read, write and"),
        ("permissions.nowhere = 0o755", "permissions.nowhere = 0o755 (from FILE): must name a directory of the"),
        ("backup_count = 0", "backup_count = 0 (from FILE): must be at least 1"),
        ("backup_count = true", "backup_count = true (from FILE): must be a whole number"),
        ("backup_count = 2.0", "backup_count = 2.0 (from FILE): must be a whole number"),
        ("enable_encryption = 'maybe'", 'enable_encryption = "maybe" (from FILE): must be true or false'),
        ("state_dir = '../x'", 'state_dir = "../x" (from FILE): must stay inside the root'),
        ("state_dir = '/etc'", 'state_dir = "/etc" (from FILE): must be relative to the root'),
        ("state_dir = 'a/../../b'", 'state_dir = "a/../../b" (from FILE): must stay inside'),
        ("state_dir = '.'", 'state_dir = "." (from FILE): must name a directory below the root'),
        ("state_dir = ''", 'state_dir = "" (from FILE): must not be empty'),
        ("logs_dir = '.quarantine'", 'logs_dir = ".quarantine" (from FILE): must not be ".quarantine"'),
        ('logs_dir = "a\\u0000b"', "logs_dir = \"a\\x00b\" (from FILE): must not contain NUL or control"),
        ('logs_dir = "a\\nb"', "logs_dir = \"a\\nb\" (from FILE): must not contain NUL or control"),
        ("logs_dir = 'state'", 'logs_dir = "state" (from FILE): must not overlap state_dir'),
        ("logs_dir = 'state/agents'", 'logs_dir = "state/agents" (from FILE): must not overlap state_dir'),
        ("state_dir = 'logs//x/'", 'logs_dir (from default): must not overlap state_dir, which is "logs/x"'),
        ("root_data_dir = '/'", 'root_data_dir = "/" (from FILE): must be a directory of its own'),
        ("root_data_dir = '/etc/'", 'root_data_dir = "/etc/" (from FILE): must be a directory of its own'),
        ("root_data_dir = '~'", 'root_data_dir = "~" (from FILE): must not be a home directory'),
        ("root_data_dir = 'data'", 'root_data_dir = "data" (from FILE): must be an absolute path'),
        ("root_data_dir = '/x/../etc'", 'root_data_dir = "/x/../etc" (from FILE): must not contain ".."'),
        ("daemon_dir = '~/.symbiont/data/d'", 'daemon_dir = "~/.symbiont/data/d" (from FILE): must be outside'),
        ("daemon_dir = '~/.symbiont'", 'daemon_dir = "~/.symbiont" (from FILE): must be outside the root'),
        ("backup.repository = '~/.symbiont/data'", 'backup.repository = "~/.symbiont/data" (from FILE): must be out'),
        ("encryption.key_file = '~/.symbiont/data/k'", 'encryption.key_file = "~/.symbiont/data/k" (from FILE): must'),
        ("encryption.key_file = '~/.symbiont/backups/k'", 'encryption.key_file = "~/.symbiont/backups/k" (from FILE)'),
        ("backup.password_file = '~/.symbiont/data/p'", 'backup.password_file = "~/.symbiont/data/p" (from FILE): '),
        ("backup.compression_level = 20", "backup.compression_level = 20 (from FILE): must be a whole number from 1"),
        ("backup.repository = 'ftp://x'", 'backup.repository = "ftp://x" (from FILE): must be a path, s3://'),
        ("backup.schedule = 'often'", 'backup.schedule = "often" (from FILE): must be an interval such as'),
        ("backup.schedule = '61 * * * *'", 'backup.schedule = "61 * * * *" (from FILE): must be an interval, or cron'),
        ("backup.schedule = '* * * *'", 'backup.schedule = "* * * *" (from FILE): must be an interval such as'),
        ("backup.schedule = 0", "backup.schedule = 0 (from FILE): must be at least 1 s"),
        ("backup.min_free = '120%'", 'backup.min_free = "120%" (from FILE): must be a percentage'),
        ("limits.high_water = '20%'", 'limits.high_water = "20%" (from FILE): must be less than limits.low_water'),
        ("limits.inodes.low_water = '5%'", "limits.inodes.high_water (from default): must be less than"),
        ("limits.low_water = '5GiB'", "limits.high_water (from default): must be of the same form as"),
        ("owner = 'no-such-user'", 'owner = "no-such-user" (from FILE): must be the name or number of a user'),
        ("group = -1", "group = -1 (from FILE): must be the name of a group, or a number from 0"),
        ("owner = 4294967295", "owner = 4294967295 (from FILE): must be the name of a user, or a number from 0"),
        ("http.listen = '0.0.0.0:80'", 'http.listen = "0.0.0.0:80" (from FILE): must be a loopback address'),
        ("http.listen = '127.0.0.1'", 'http.listen = "127.0.0.1" (from FILE): must be host:port'),
        ("metrics.textfile = '/run/x.txt'", 'metrics.textfile = "/run/x.txt" (from FILE): must end with ".prom"'),
        ("metrics.textfile = '~/.symbiont/data/x.prom'", 'metrics.textfile = "~/.symbiont/data/x.prom" (from FILE)'),
        ("guard.watch = 'often'", "guard.watch = \"often\" (from FILE): must be one of 'auto', 'polling' or 'off'"),
        ("guard.require_mount = 'mnt'", 'guard.require_mount = "mnt" (from FILE): must be true, false, or'),
        ("auto_save_interval = '101y'", 'auto_save_interval = "101y" (from FILE): must be'),
        ("auto_save_interval = 4000000000", "auto_save_interval = 4000000000 (from FILE): must be at most 100 years"),
        ("daemon_dir = '/srv/own'\nbackup.repository = '/srv/own/b'", 'backup.repository = "/srv/own/b" (from FILE): '),
        ("vector_db.extra_roots = ['/srv/a', '/srv/a/b']", "vector_db.extra_roots[1]"),
        ("http.listen = 'somewhere:80'", 'http.listen = "somewhere:80" (from FILE): must be a loopback address'),
        ("guard = 5", "guard (from FILE): must be a table"),
        ("permissions = []", "permissions (from FILE): must be a table"),
        ("logs.patterns = '*.log'", 'logs.patterns = "*.log" (from FILE): must be a list'),
        ("logs.rule = [{}]", "logs.rule[0].patterns (from FILE): must be set"),
        ("logs.rule = [{patterns=['a'], kep=1}]", "logs.rule[0].kep (from FILE): is not a setting; did you mean keep"),
        ("logs.rule = [{patterns=['a'], keep=0}]", "logs.rule[0].keep = 0 (from FILE): must be at least 1"),
        ("logs.patterns = ['../*']", 'logs.patterns[0] = "../*" (from FILE): must be a pattern relative'),
        ("guard.recncile_interval = 5", "guard.recncile_interval (from FILE): is not a setting; did you mean guard"),
        ("backup_cuont = 5", "backup_cuont (from FILE): is not a setting; did you mean backup_count?"),
        ("zzz = 5", "zzz (from FILE): is not a setting"),
        ("layout.directory = [{}]", "layout.directory[0].path (from FILE): must be set"),
        ("layout.directory = [5]", "layout.directory[0] = 5 (from FILE): must be a table"),
        ("layout.directory = [{path='a', mod=1}]", "layout.directory[0].mod (from FILE): is not a setting; did you me"),
        ("layout.directory = [{path='logs'}]", 'layout.directory[0].path = "logs" (from FILE): must not be a dir'),
        ("layout.directory = [{path='a/b'}]", 'layout.directory[0].path = "a/b" (from FILE): must have a parent'),
        ("layout.directory = [{path='a'},{path='a'}]", 'layout.directory[1].path = "a" (from FILE): must not be decl'),
        ("layout.directory = [{path='../a'}]", 'layout.directory[0].path = "../a" (from FILE): must stay inside'),
        ("layout.directory = [{path='a', max_files=0}]", "layout.directory[0].max_files = 0 (from FILE): must be at l"),
        ("retention.cahce.max_age = '1d'", 'retention.cahce (from FILE): must be "cache", "history"'),
        ("retention.x.directory = 'state/agents'", 'retention.x.directory = "state/agents" (from FILE): must not be'),
        ("retention.x.directory = 'vector_db/a'", 'retention.x.directory = "vector_db/a" (from FILE): must not be ab'),
        ("retention.'state' = {max_files=1}", 'retention.state (from FILE): must not be about "state"'),
        ("retention.x.directory = 'logs'", 'retention.x (from FILE): must have patterns, because retention.logs is ab'),
        ("retention.x.directory = '../x'", 'retention.x.directory = "../x" (from FILE): must stay inside'),
        ("retention.'logs/agents'.directory='logs/system'\nretention.y.directory='logs/system'",
         'retention.y (from FILE): must have patterns, because retention."logs/agents" is about'),
        ("retention.history = {pack_after='1d', whole=false}", 'retention.history.pack_after = "1d" (from FILE): must'),
        ("retention.history.age_by = 'born'", 'retention.history.age_by = "born" (from FILE): must be'),
        ("retention.logs.protect = ['/etc']", 'retention.logs.protect[0] = "/etc" (from FILE): must be a pattern'),
        ("retention.history.max_bytes = 0", "retention.history.max_bytes = 0 (from FILE): must be at least 1 byte"),
    ],
)  # fmt: skip
def test_refusals(sources: Sources, toml: str, expected: str) -> None:
    """A value that can't be used is refused with its name, itself, its source and what is allowed, and nothing else."""
    problems = sources.problems(toml)
    assert [True] == [problem.startswith(expected) for problem in problems], problems


def test_all_problems_at_once(sources: Sources) -> None:
    """Bad values, unknown keys and conflicts from all sources are told together, one line each."""
    problems = sources.problems(
        "zzz = 1\nstate_dir = '..'\nlogs_dir = 'prompts'\n[http]\nlisten = '0.0.0.0:1'",
        {"GUARD__BACKOFF_AFTER": "few", "NOPE__X": "1", "LAYOUT__DIRECTORY": "[1"},
        {"logging.level": "loud", "not a name": 1},
    )
    starts = [
        "'not a name' (from command line)",
        "layout.directory (from environment SYMBIONT_DATAD_LAYOUT__DIRECTORY): must be valid JSON",
        "nope.x (from environment SYMBIONT_DATAD_NOPE__X): is not a setting",
        "zzz (from FILE)",
        'state_dir = ".." (from FILE)',
        'guard.backoff_after = "few" (from environment SYMBIONT_DATAD_GUARD__BACKOFF_AFTER)',
        'logging.level = "loud" (from command line)',
        'prompts_dir (from default): must not overlap logs_dir, which is "prompts"',
        'http.listen = "0.0.0.0:1" (from FILE)',
    ]
    assert [True] * len(starts) == [p.startswith(s) for p, s in zip(problems, starts, strict=True)], problems


def test_a_conflict_with_a_bad_value_is_not_told(sources: Sources) -> None:
    """A value that was refused is not held against the settings that it would have to fit."""
    assert 1 == len(sources.problems("limits.high_water = 'much'\nlimits.low_water = '5%'"))


def test_a_decimal_mode_is_explained(sources: Sources) -> None:
    """Who writes 755 as a decimal number is told what it means."""
    assert 'the number 755 is 0o1363: did you mean 0o755 or "755"?' in sources.problems("dir_permissions = 755")[0]


def test_secrets_are_never_shown(sources: Sources) -> None:
    """Neither a good secret nor a bad one, nor one in the wrong place, is printed."""
    (sources.credentials / "symbiont_datad_http__token").write_text("hunter2\n")
    loaded = sources.load()
    token = loaded.settings.http.token
    assert token is not None
    assert "hunter2" == token.get_secret_value()
    assert "hunter2" not in repr(loaded)
    (sources.credentials / "symbiont_datad_http__token").write_bytes(b"hunter2\xff")
    bad = "http = 'hunter2'\nhttq = {token = 'hunter2'}\n[backup]\npassword = \"hunter2\\u0007\"\nrepository = "
    problems = sources.problems(bad + "'s3://me:hunter2@b/p'", {"HTTP": '{"token": "hunter2'})
    assert 6 == len(problems)
    assert "hunter2" not in "".join(problems)
    assert "backup.password = ********** (from FILE): must not contain NUL or control characters" in problems


def test_unknown_variables_and_credentials_are_refused(sources: Sources) -> None:
    """A name with our prefix that is no setting is an unknown key, wherever it comes from."""
    (sources.credentials / "symbiont_datad_http__tokn").write_text("x")
    wrong = "DIR/credentials/symbiont_datad_http__tokn"
    assert [
        "backup_cont (from environment SYMBIONT_DATAD_BACKUP_CONT): is not a setting; did you mean backup_count?",
        f"http.tokn (from credential {wrong}): is not a setting; did you mean http.token?",
    ] == sources.problems(environ={"BACKUP_CONT": "1"})


def test_a_directory_behind_a_link(sources: Sources) -> None:
    """A configured directory must not lead out of the root through a link; one inside the root is fine."""
    root = sources.home / "tree"
    (root / "inside").mkdir(parents=True)
    (root / "out").symlink_to("/usr")
    (root / "in").symlink_to("inside")
    toml = f"root_data_dir = '{root}'\nstate_dir = "
    assert root / "in/state" == sources.load(toml + "'in/state'").settings.state_path()
    for name in ("out", "out/state"):
        assert ["must stay inside the root"] == re.findall("must stay[^:]*", sources.problems(f"{toml}'{name}'")[0])


def test_a_default_directory_that_became_a_link_is_left_to_the_guard(sources: Sources) -> None:
    """A link in place of a directory of the layout is drift: it must not keep the daemon from starting."""
    root = sources.home / ".symbiont/data"
    root.mkdir(parents=True)
    (root / "state").symlink_to("/usr")
    assert root == sources.load().settings.root_data_dir


def test_a_root_that_is_a_link_to_home(sources: Sources) -> None:
    """A home directory stays one under another name, and so does a directory that holds it."""
    (sources.file.parent / "link").symlink_to(sources.home)
    for name in ("link", "home", ""):
        root = str(sources.file.parent / name)
        assert "must not be a home directory or hold one" in sources.problems(overrides={"root_data_dir": root})[0]


def test_loading_touches_nothing(sources: Sources) -> None:
    """Loading creates no directory and no file."""
    sources.load()
    assert [] == list(sources.home.iterdir())


def test_limits_by_name(sources: Sources) -> None:
    """`[retention.NAME]` gives its limits to the extra directory of that name, and can't contradict it."""
    toml = "[retention.reports]\nmax_files = 5\n[[layout.directory]]\npath = 'reports'\nmax_age = '1d'\n"
    found = sources.load(toml).settings
    policy = found.retention_of(found.layout.directory[0])
    assert (86_400, 5, None) == (policy.max_age, policy.max_files, policy.max_bytes)
    assert [
        "retention.reports.max_files = 5 (from FILE): must not differ from the same limit in its [[layout.directory]]"
    ] == sources.problems(toml + "max_files = 6")


def test_a_rule_of_any_name_needs_a_directory(sources: Sources) -> None:
    """It may name one, or be named after one of the layout; archives and sessions are state that may go."""
    toml = """
[retention.traces]
directory = "logs/agents"
patterns = ["*.trace"]
max_age = "1d"
[retention."logs/system"]
max_files = 3
[retention.old]
directory = "state/agents/archives"
patterns = ["*/archive_*.tmp"]
max_age = "1d"
"""
    named = sources.load(toml).settings.retention.named
    assert ("logs/agents", ("*.trace",), None) == (
        named["traces"].directory,
        named["traces"].patterns,
        named["logs/system"].directory,
    )


def test_owner_and_group_become_ids(sources: Sources) -> None:
    """Names are looked up, numbers are taken, and None means that nothing is set."""
    import grp
    import pwd

    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    found = sources.load(overrides={"owner": user.pw_name, "group": group.gr_name}).settings
    assert (user.pw_uid, group.gr_gid) == found.owner_ids()
    assert (None, None) == Settings().owner_ids()
    assert (1234, None) == sources.load("owner = '1234'").settings.owner_ids()


def test_settings_are_frozen_and_travel(sources: Sources) -> None:
    """Settings can't be changed, and a child process gets equal ones through pickle."""
    found = sources.load("permissions.logs = 0o700").settings
    with pytest.raises(ValidationError, match="frozen"):
        found.guard.backoff_after = 5  # type: ignore[misc]
    assert found == pickle.loads(pickle.dumps(found))


def test_paths(tmp_path: Path) -> None:
    """The path methods name the directories below the root and are cached."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "data", state_dir="st")
    data = tmp_path / "data"
    assert [data / "st", data / "logs", data / "prompts", data / "vector_db"] == [
        config.state_path(), config.logs_path(), config.prompts_path(), config.vector_db_path(),
    ]  # fmt: skip
    assert [data / "st/agents", data / "st/sessions"] == [config.agent_contexts_path(), config.sessions_path()]
    assert config.state_path() is config.state_path()
    assert data / "other" == config.model_copy(update={"state_dir": "other"}).state_path()


def test_a_config_of_ones_own_is_checked(tmp_path: Path) -> None:
    """Agents' code that builds a configuration gets the same refusals, as ValidationError."""
    with pytest.raises(ValidationError, match="must not overlap state_dir"):
        FilePersistenceConfig(root_data_dir=tmp_path / "data", logs_dir="state")
    with pytest.raises(ValidationError, match="must stay inside the root"):
        FilePersistenceConfig(root_data_dir=tmp_path / "data", logs_dir="../x")


def test_the_config_reads_the_daemons_sources(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """`FilePersistenceConfig.load` takes the environment and the file like the daemon, and has the eleven only."""
    monkeypatch.setenv("HOME", str(sources.home))
    monkeypatch.setenv("SYMBIONT_DATAD_BACKUP_COUNT", "9")
    (sources.home / ".symbiont").mkdir()
    (sources.home / ".symbiont/datad.toml").write_text("state_dir = 'st'\n[guard]\nwatch = 'off'")
    config = FilePersistenceConfig.load()
    assert FilePersistenceConfig is type(config)
    assert (9, "st", sources.home / ".symbiont/data") == (config.backup_count, config.state_dir, config.root_data_dir)


def test_ensure_directories(tmp_path: Path) -> None:
    """The sixteen directories are made with their mode whatever the umask, and a second call makes nothing."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "x/data", dir_permissions=0o2770, auto_create_dirs=False)
    umask = os.umask(0o077)
    try:
        created = config.ensure_directories()
    finally:
        os.umask(umask)
    found = set((tmp_path / "x/data").rglob("*")) | {tmp_path / "x/data"}
    assert (16, found) == (len(created), set(created))
    assert {0o2770} == {path.stat().st_mode & 0o7777 for path in found}
    assert () == config.ensure_directories()


def test_ensure_directories_leaves_what_is_there(tmp_path: Path) -> None:
    """A directory that exists keeps its mode, and one that went comes back."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "data")
    config.ensure_directories()
    config.logs_path().chmod(0o700)
    config.agent_contexts_path().rmdir()
    assert (config.agent_contexts_path(),) == config.ensure_directories()
    assert 0o700 == config.logs_path().stat().st_mode & 0o7777


def test_ensure_directories_under_threads(tmp_path: Path) -> None:
    """Many threads at once make each directory exactly once, and none of them fails."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "data")
    with ThreadPoolExecutor(16) as pool:
        created = [path for each in pool.map(lambda _: config.ensure_directories(), range(64)) for path in each]
    assert (16, 16) == (len(created), len(set(created)))


@pytest.mark.parametrize("where", ["", "state", "state/agents"])
@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_ensure_directories_refuses_what_is_in_the_way(tmp_path: Path, where: str, what: str) -> None:
    """A file or a link in place of a directory is an error that names it, and nothing is made behind a link."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "data")
    place = config.root_data_dir / where
    place.parent.mkdir(parents=True, exist_ok=True)
    target = tmp_path / "target"
    if what == "file":
        place.write_text("")
    else:
        if what == "link":
            target.mkdir()
        place.symlink_to(target)
    if (where, what) == ("", "link"):
        # The way to the root is the user's own: a root on another disk is often a link.
        assert 15 == len(config.ensure_directories())
        return
    with pytest.raises(NotADirectoryError, match="stands where a directory belongs") as caught:
        config.ensure_directories()
    assert str(place) == caught.value.filename
    assert not target.exists() or [] == list(target.iterdir())


def test_a_category_with_several_steps(tmp_path: Path) -> None:
    """The steps of a category's name are made too."""
    config = FilePersistenceConfig(root_data_dir=tmp_path / "data", state_dir="var/state")
    assert 17 == len(config.ensure_directories())
    assert config.agent_contexts_path().is_dir()


@pytest.mark.parametrize("uncomment", [False, True])
def test_the_example_loads(sources: Sources, uncomment: bool) -> None:
    """The commented file changes nothing but the root, and with everything taken in every setting comes from it."""
    text = example_toml(sources.load(overrides={"root_data_dir": "/srv/x/data"}).settings)
    if uncomment:
        text = re.sub("(?m)^#(?! )", "", text)
    loaded = sources.load(text)
    set_by_file = {name for name, origin in loaded.origins.items() if origin != "default"}
    assert Path("/srv/x/data") == loaded.settings.root_data_dir
    assert (set(loaded.origins) if uncomment else {"root_data_dir"}) == set_by_file


def test_the_example_shows_the_defaults(sources: Sources) -> None:
    """Taking in the lines that show a default changes no value."""
    plain = sources.load().settings
    text = example_toml(plain)
    shown = re.sub(r"(?m)(?<!this is an example\.\n)(?<!example\.\n)^#(?! |\[)", "", text.partition("#[retention.r")[0])
    found = sources.load("\n".join(line for line in shown.splitlines() if not line.startswith('"logs/audit"'))).settings
    assert plain == found


def test_every_setting_is_documented() -> None:
    """Every setting has a description, an example, and says what is allowed."""
    bare = [
        (table.header, name)
        for table in tables()
        for name, field in table.fields.items()
        if not (field.description and field.examples and unit_of(field).allowed != "text")
    ]
    assert [] == bare


def test_every_example_is_good(sources: Sources) -> None:
    """The example of every setting is accepted when it is given alone."""
    for table in tables():
        for name, field in table.fields.items():
            if table.path[-1:] != ("NAME",) and not table.repeated:
                full = dotted((*table.path, name))
                assert "command line" == sources.load(overrides={full: (field.examples or [None])[0]}).origins[full]


def test_the_reference_is_current() -> None:
    """docs/settings.md is what the models say."""
    result = subprocess.run([sys.executable, ROOT / "scripts/reference", "--check"], capture_output=True, text=True)
    assert (0, "") == (result.returncode, result.stderr)


def test_importing_is_light() -> None:
    """The models load neither the terminal's libraries nor those that only reading needs."""
    code = "import sys, symbiont_datad.settings; print({'rich', 'typer', 'pydantic_settings'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()\n" == result.stdout


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_dotted_names_read_back(path: list[str]) -> None:
    """A name in parts survives being written with dots and quotes."""
    assert tuple(path) == undotted(dotted(tuple(path)))


NAMES = sorted(name for name in settings_sources.known_names())
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["1d", "5%", "/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def loads_or_refuses(environ: Mapping[str, str], overrides: Mapping[str, object], file: Path | None = None) -> None:
    """Load, and let nothing but SettingsError be raised, whose text can be printed."""
    text = ""
    try:
        load(file, overrides, {"HOME": "/nonexistent/home", **environ})
    except SettingsError as error:
        text = str(error)
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=10), JUNK, max_size=4))
def test_junk_values(overrides: Mapping[str, object]) -> None:
    """Whatever is given for a setting, it is loaded or refused."""
    loads_or_refuses({}, overrides)


@given(
    st.dictionaries(
        st.sampled_from([name.replace(".", "__").upper() for name in NAMES]) | st.text(max_size=10),
        JUNK.map(json.dumps) | st.text(max_size=12) | st.sampled_from(["[" * 5000, "{" * 5000, "\udcff", "[\udc80"]),
        max_size=3,
    )
)
def test_junk_variables(variables: Mapping[str, str]) -> None:
    """Whatever is in the environment, it is loaded or refused."""
    loads_or_refuses({f"SYMBIONT_DATAD_{name}": value for name, value in variables.items() if name != "CONFIG"}, {})


@given(
    st.binary(max_size=60)
    | st.tuples(st.sampled_from(NAMES), JUNK).map(lambda pair: f"{pair[0]} = {json.dumps(pair[1])}".encode())
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_files(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file, it is loaded or refused."""
    file = tmp_path / "datad.toml"
    file.write_bytes(content)
    loads_or_refuses({}, {}, file)


def test_a_directory_that_may_not_be_made_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """The system's own error, and nothing is left behind."""
    (open_path / "closed").mkdir(mode=0o700)
    config = FilePersistenceConfig(root_data_dir=open_path / "closed" / "data")
    with pytest.raises(PermissionError):
        as_nobody(config.ensure_directories)
    assert [] == list((open_path / "closed").iterdir())


def test_the_name_of_the_settings_file_in_the_environment(sources: Sources) -> None:
    """`~` is the home; what can be no path is refused, with the variable's name."""
    home = Path(str(sources.home))
    (home / "mine.toml").write_text("backup_count = 9\n")
    environ = {"HOME": str(home), "SYMBIONT_DATAD_CONFIG": "~/mine.toml"}
    assert 9 == load(environ=environ).settings.backup_count
    for named in (" ", ""):
        with pytest.raises(SettingsError, match=r"SYMBIONT_DATAD_CONFIG .*: must be the path of a file"):
            load(environ={**environ, "SYMBIONT_DATAD_CONFIG": named})


def test_somebodys_home_in_a_path(sources: Sources) -> None:
    """`~root` is root's; text that no file name can hold is refused."""
    environ = {"HOME": str(sources.home)}
    loaded = load(overrides={"daemon_dir": "~root/own"}, environ=environ)
    assert Path(os.path.expanduser("~root")) / "own" == loaded.settings.daemon_dir
    with pytest.raises(SettingsError, match="must be text that a file name can hold"):
        load(overrides={"daemon_dir": "/srv/\ud800"}, environ=environ)


def test_without_a_home_no_path_begins_there() -> None:
    """Of a user whom the system does not know, as in many a container: the setting is named."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")

    def ask() -> str:
        with pytest.raises(SettingsError) as caught:
            load(overrides={"daemon_dir": "~/own"}, environ={})
        return str(caught.value)

    assert "must not begin with ~ here, because no home directory is known" in run_as(54_321, ask)


def test_what_else_lies_among_the_secrets_is_passed_over(sources: Sources, tmp_path: Path) -> None:
    """A directory there is no setting."""
    (tmp_path / "run" / "secrets" / "SYMBIONT_DATAD_BACKUP_COUNT").mkdir(parents=True)
    assert 3 == load(environ={"HOME": str(sources.home)}).settings.backup_count
