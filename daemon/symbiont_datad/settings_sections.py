"""The sections of `datad.toml`: every setting below the top level, its default, unit and bounds."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from symbiont_datad.quantities import DAY, HOUR, MINUTE, Share
from symbiont_datad.settings_logs import Logs as Logs
from symbiont_datad.settings_retention import RetentionPolicy
from symbiont_datad.settings_types import (
    AbsolutePath,
    AgeLimit,
    Count,
    Delay,
    DirectoryMode,
    Interval,
    PartOfDisk,
    RelativePath,
    Schedule,
    Secret,
    Section,
    Text,
    Unit,
    read_absolute,
    read_count,
    read_text,
)

OBJECT_STORES = ("s3://", "gs://", "az://")

_HIGHEST_LEVEL = 19  # of zstd's levels; those above it need much more memory, to read as well


def _read_mount(value: object, info: ValidationInfo) -> bool | Path:
    word = str(value).strip().lower() if isinstance(value, bool | int | str) else value
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    try:
        return read_absolute(value, info)
    except ValueError:
        raise ValueError("must be true, false, or the absolute path of a mount point") from None


def _read_repository(value: object, info: ValidationInfo) -> str:
    text = read_text(value)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return str(read_absolute(text, info))
    if not text.startswith(OBJECT_STORES) or not re.match(r"\w+://[^/@]", text):
        raise ValueError("must be a path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")
    if "@" in text:
        raise ValueError("must not hold a name or password: give those to the object store's own variables")
    return text


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8125` or `[::1]:8125`. Raises ValueError when it is neither."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", listen)
    if not match or not 0 < int(match[3]) < 65536:
        raise ValueError('must be host:port, as "127.0.0.1:8125" or "[::1]:8125"')
    return match[1] or match[2], int(match[3])


def _read_listen(value: object) -> str:
    text = read_text(value)
    split_listen(text)
    return text


def _read_textfile(value: object, info: ValidationInfo) -> Path:
    path = read_absolute(value, info)
    if path.suffix != ".prom":
        raise ValueError('must end with ".prom": node_exporter reads no other files')
    return path


def _read_level(value: object) -> int:
    level = read_count(value)
    if not 1 <= level <= _HIGHEST_LEVEL:
        raise ValueError(f"must be a whole number from 1 to {_HIGHEST_LEVEL}")
    return level


Mount = Annotated[bool | Path, PlainValidator(_read_mount), WithJsonSchema({"type": ["boolean", "string"]}),
                  Unit("plain", "true, false, or the path of a mount point")]  # fmt: skip
Repository = Annotated[str, BeforeValidator(_read_repository),
                       Unit("plain", "an absolute path, `s3://bucket/prefix`, `gs://…` or `az://…`")]  # fmt: skip
Listen = Annotated[str, BeforeValidator(_read_listen), Unit("plain", "`host:port`")]
Textfile = Annotated[Path, BeforeValidator(_read_textfile), Unit("plain", "an absolute path that ends with `.prom`")]
Level = Annotated[int, PlainValidator(_read_level), WithJsonSchema({"type": ["integer", "string"]}),
                  Unit("plain", "a whole number from 1 to 19")]  # fmt: skip
Paths = Annotated[tuple[AbsolutePath, ...], Unit("plain", "a list of absolute paths")]


class Guard(Section):
    """How the layout is watched and repaired."""

    watch: Literal["auto", "polling", "off"] = Field(
        "auto",
        description="Where hints about changes come from: the system's own events, polling (network file systems), or "
        "nowhere, so that only the periodic reconcile finds drift.",
        examples=["polling"],
    )
    reconcile_interval: Interval = Field(
        60.0, description="Time between two full comparisons of the tree with the layout.", examples=["30s"]
    )
    require_mount: Mount = Field(
        False,
        description="Touch nothing unless this is mounted: true means the root or its parent must be a mount point, a "
        "path names the mount point.",
        examples=["/mnt/agents"],
    )
    backoff_after: Count = Field(
        10, description="Repairs of one path within a minute before the guard backs off from it.", examples=[20]
    )
    make_days: bool = Field(
        True,
        description="Whether the directories of today and tomorrow are there in the prompt history (by UTC, and by "
        "the local time where that has another date).",
        examples=[False],
    )


class Autosave(Section):
    """What the autosave sweep keeps (`auto_save_interval`, at the top, says how often it runs)."""

    keep_last: Count = Field(12, description="Number of the latest sweeps' snapshots to keep.", examples=[24])
    keep_hourly: Count = Field(24, description="Number of hours to keep one sweep's snapshot of.", examples=[48])
    on_stop: bool = Field(
        True, description="Whether the daemon sweeps once more when it is told to end; 2.5 s at most.", examples=[False]
    )


class Prompts(Section):
    """The versions of prompt templates. Each change is a snapshot of `prompts/templates/` alone."""

    debounce: Delay = Field(
        2.0,
        description="Time without another change after which changed templates are saved; never longer than ten times "
        "this after the first change.",
        examples=["500ms"],
    )
    keep_last: Count = Field(100, description="Number of the latest versions to keep.", examples=[1000])
    keep_daily: Count | None = Field(30, description="Number of days to keep the last version of.", examples=[90])
    keep_weekly: Count | None = Field(26, description="Number of weeks to keep the last version of.", examples=[52])
    keep_within: Interval | None = Field(None, description="Keep every version younger than this.", examples=["90d"])


class Backup(Section):
    """The snapshot repository and what it keeps. `backup_count`, at the top, is keep-last."""

    repository: Repository | None = Field(
        None,
        description="Where snapshots go: a directory, or a bucket of an object store.",
        examples=["s3://bucket/agents"],
        json_schema_extra={"derived": "`backups`, beside the root or in `$STATE_DIRECTORY`"},
    )
    schedule: Schedule = Field(DAY, description="When to back up the whole tree.", examples=["15 3 * * *"])
    keep_hourly: Count | None = Field(None, description="Number of hours to keep one snapshot of.", examples=[24])
    keep_daily: Count | None = Field(None, description="Number of days to keep one snapshot of.", examples=[14])
    keep_weekly: Count | None = Field(None, description="Number of weeks to keep one snapshot of.", examples=[8])
    keep_monthly: Count | None = Field(None, description="Number of months to keep one snapshot of.", examples=[12])
    keep_yearly: Count | None = Field(None, description="Number of years to keep one snapshot of.", examples=[3])
    keep_within: Interval | None = Field(None, description="Keep every snapshot younger than this.", examples=["7d"])
    compression_level: Level = Field(
        3, description="How hard zstd tries when `enable_compression` is true: 1 is fast, 19 is small.", examples=[9]
    )
    include_caches: bool = Field(False, description="Whether prompt caches are part of backups.", examples=[True])
    password_file: AbsolutePath | None = Field(
        None,
        description="File with the password of a repository that has one of its own.",
        examples=["/etc/symbiont/repository.password"],
    )
    password: Secret | None = Field(
        None, description="That password itself; meant for a credential, not for this file.", examples=["change me"]
    )
    verify_schedule: Schedule = Field(DAY, description="When to check the repository.", examples=["0 5 * * sun"])
    read_all_within: Interval = Field(
        30 * DAY, description="Time within which the checks together read all stored data once.", examples=["14d"]
    )
    min_free: PartOfDisk = Field(
        Share(percent=5), description="Free space on the repository's file system below which no backup starts.",
        examples=["2GiB"],
    )  # fmt: skip


class Encryption(Section):
    """The key that opens everything when `enable_encryption` is true."""

    key_file: AbsolutePath = Field(
        Path("~/.symbiont/datad.key"),
        description="File with one age identity (`AGE-SECRET-KEY-1…`), mode 0600.",
        examples=["/etc/symbiont/datad.key"],
    )
    key: Secret | None = Field(
        None, description="That identity itself; meant for a credential, not for this file.", examples=["change me"]
    )


class State(Section):
    """The care of agents' contexts."""

    heal: Literal["restore", "report", "off"] = Field(
        "restore",
        description="What to do about a broken context: put its last good version back, only report it, or not look.",
        examples=["report"],
    )
    settle: Delay = Field(
        10.0, description="Time for which a file must be unchanged before it counts as written.", examples=["30s"]
    )
    heal_quarantine: bool = Field(
        False, description="Whether a broken context without a good version is moved to quarantine.", examples=[True]
    )
    compression: Literal["detect", "on", "off"] = Field(
        "detect",
        description="Whether the runtime loads compressed contexts (`.json.gz`) or plain ones (`.json`); healing puts "
        "one in the other mode right. Detected, it is what most contexts and the newest one are.",
        examples=["on"],
    )
    compress_archives: AgeLimit = Field(
        None, description="Age from which an archived context is stored compressed. Unset: never.", examples=["30d"]
    )


class WaterMarks(Section):
    """Free space at which to warn and act (`high_water`), and up to which to go (`low_water`)."""

    high_water: PartOfDisk = Field(Share(percent=10), description="Act when less than this is free.", examples=["5%"])
    low_water: PartOfDisk = Field(Share(percent=15), description="Stop when this is free again.", examples=["20%"])


class InodeMarks(WaterMarks):
    """The same marks for inodes; an amount is a number of inodes."""


class Limits(WaterMarks):
    """Free space at which to warn and act (`high_water`), and up to which to go (`low_water`)."""

    inodes: InodeMarks = Field(InodeMarks(), description="The same for inodes.")


class VectorDb(Section):
    """The care of vector collections."""

    metadata_interval: Interval = Field(
        HOUR,
        description="Time between two looks at the collections, which keep `vector_db/metadata/`.",
        examples=["15m"],
    )
    optimize_schedule: Schedule = Field(
        7 * DAY, description="When to look for collections to optimise.", examples=["0 4 * * sat"]
    )
    optimize_when: PartOfDisk = Field(
        Share(percent=25), description="Reclaimable part of a collection from which it is optimised.", examples=["10%"]
    )
    keep_versions: Interval = Field(
        HOUR,
        description="Time for which an old version of a Lance table stays after a newer one has replaced it: who reads "
        "it must have finished by then.",
        examples=["1d"],
    )
    keep_snapshots: Interval = Field(
        7 * DAY,
        description="Time for which the snapshot of a collection before it was optimised is kept.",
        examples=["2d"],
    )
    extra_roots: Paths = Field(
        (),
        description="Directories outside the root with collections: in backups, measured and listed, and not touched "
        "unless `vectors optimize` names one.",
        examples=[["/srv/vectors"]],
    )


class Migration(Section):
    """Legacy directories."""

    automatic: bool = Field(False, description="Whether the daemon migrates what it finds at start.", examples=[True])
    legacy: Paths = Field((), description="More places to look for legacy data.", examples=[["/srv/agent_storage"]])
    compat: Literal["none", "symlink", "mirror"] = Field(
        "none",
        description="How an old place goes on working until `migrate --finish`: not at all, as a link to the new one, "
        "or mirrored, which brings over what is still written to it.",
        examples=["symlink"],
    )
    both_ways: bool = Field(
        False, description="Whether a mirror also brings what is new in the tree to the old place.", examples=[True]
    )


class Http(Section):
    """Health, metrics and the status page over HTTP."""

    listen: Listen | None = Field(None, description="Where to listen. Unset: off.", examples=["127.0.0.1:8125"])
    token_file: AbsolutePath | None = Field(
        None, description="File with the token that callers must send; required off loopback.",
        examples=["/etc/symbiont/http.token"],
    )  # fmt: skip
    token: Secret | None = Field(
        None, description="That token itself; meant for a credential, not for this file.", examples=["change me"]
    )


class Metrics(Section):
    """Metrics for Prometheus: at `/metrics` of `[http]`; or, without a server, in a file for node_exporter."""

    textfile: Textfile | None = Field(
        None, description="File for node_exporter's textfile collector; its directory must be there.",
        examples=["/var/lib/prometheus/node-exporter/symbiont-datad.prom"],
    )  # fmt: skip
    textfile_interval: Interval = Field(30.0, description="Time between two writes of that file.", examples=["1m"])
    tree: Text | None = Field(
        None,
        description="Value of a label `tree` that every metric gets; needed where several daemons write files for one "
        "node_exporter. Unset: no such label.",
        examples=["ada"],
    )


class Schedules(Section):
    """When jobs run that have no section of their own."""

    usage_interval: Interval = Field(5 * MINUTE, description="Time between two measurements of usage.", examples=["1m"])
    retention_interval: Interval = Field(HOUR, description="Time between two runs of retention.", examples=["6h"])
    rotation_interval: Interval = Field(
        5 * MINUTE, description="Time between two looks at the logs, whether one must be rotated.", examples=["1m"]
    )
    jitter: Delay = Field(0.0, description="Random delay added to each run, at most this long.", examples=["30s"])


class Logging(Section):
    """The daemon's own log."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important events that are logged.", examples=["debug"]
    )
    format: Literal["auto", "console", "json", "journal"] = Field(
        "auto",
        description="Form of the log: coloured lines on a terminal, fields in the journal, JSON lines elsewhere.",
        examples=["json"],
    )


class ExtraDirectory(RetentionPolicy):
    """One more directory that the daemon keeps, and what goes from it."""

    path: RelativePath = Field(
        description="Path relative to the root. Its parents must be directories of the layout too.",
        examples=["reports"],
    )
    purpose: Text = Field("extra directory", description="What it is for, in a few words.", examples=["daily reports"])
    mode: DirectoryMode | None = Field(
        None, description="Its mode.", examples=["0o750"], json_schema_extra={"derived": "`dir_permissions`"}
    )
    open: bool = Field(
        False, description="Whether directories that users make inside it get its mode as well.", examples=[True]
    )


class ExtraLayout(Section):
    """More directories."""

    directory: Annotated[tuple[ExtraDirectory, ...], Unit("plain", "tables, or a JSON list of them")] = Field(
        (), description="More directories that the daemon keeps.", examples=[[{"path": "reports"}]]
    )


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address that `split_listen` accepts."""
    import ipaddress

    host, _ = split_listen(listen)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def overlap(one: str | Path, other: str | Path) -> bool:
    """Whether two paths on disk are the same or one lies inside the other, after links were followed."""
    a, b = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return a == b or a in b.parents or b in a.parents
