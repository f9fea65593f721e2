"""The settings of what is removed: retention, the quarantine, and what happens when the disk is nearly full."""

from typing import Literal

from pydantic import ConfigDict, Field

from symbiont_datad.quantities import DAY, GIB, Share
from symbiont_datad.settings_types import (
    AgeLimit,
    Count,
    CountLimit,
    Delay,
    PartOfDisk,
    Patterns,
    RelativePath,
    Section,
    SizeLimit,
)

AgeBy = Literal["written", "read", "used", "name"]


class RetentionPolicy(Section):
    """What goes, oldest first. Unset: nothing goes."""

    max_age: AgeLimit = Field(None, description="Age from which a file goes.", examples=["90d"])
    max_bytes: SizeLimit = Field(
        None, description="Size of all files together, above which some go.", examples=["5GiB"]
    )
    max_files: CountLimit = Field(None, description="Number of files above which some go.", examples=[100000])
    age_by: AgeBy = Field(
        "written",
        description="What the age of a file counts from: when it was written, read, used (either), or the end of the "
        "day that the first name below the directory tells.",
        examples=["name"],
    )
    whole: bool = Field(
        False,
        description="Whether a directory right in this one is one unit: as old as its newest file, gone whole or not "
        "at all, and counted as one.",
        examples=[True],
    )
    protect: Patterns = Field(
        (), description="What never goes, relative to the directory.", examples=[["keep", "**/*.pinned"]]
    )


class CachePolicy(RetentionPolicy):
    """Prompt caches: what can be made again is trimmed by default."""

    max_age: AgeLimit = Field(30 * DAY, description="Age from which a cached file goes.", examples=["7d"])
    max_bytes: SizeLimit = Field(GIB, description="Size of all cached files above which some go.", examples=["200MiB"])
    age_by: AgeBy = Field("used", description="What the age of a cached file counts from.", examples=["written"])
    remove_broken: bool = Field(
        True,
        description="Whether cached files go that are empty, end in NUL bytes, or are named .json and hold none.",
        examples=[False],
    )


class HistoryPolicy(RetentionPolicy):
    """Prompt history, a directory a day."""

    whole: bool = Field(True, description="Whether a day is one unit, that goes whole or not at all.", examples=[False])
    pack_after: AgeLimit = Field(
        None,
        description="Age from which a day is packed into one compressed file (`tar --zstd -xf` opens it; sealed with "
        "age where `enable_encryption` is on).",
        examples=["7d"],
    )


class ArchivesPolicy(RetentionPolicy):
    """Archived contexts, a directory an agent."""

    whole: bool = Field(
        True, description="Whether the archives of an agent are one unit, that goes whole or not at all.",
        examples=[False],
    )  # fmt: skip


class NamedPolicy(RetentionPolicy):
    """What goes from one more directory, or by patterns from any."""

    directory: RelativePath | None = Field(
        None,
        description="The directory that it is about, relative to the root.",
        examples=["logs/agents"],
        json_schema_extra={"derived": "the directory of the layout that the table is named after"},
    )
    patterns: Patterns = Field(
        (), description="The files that it is about, relative to the directory; none means all.",
        examples=[["**/*.trace", "debug-*"]],
    )  # fmt: skip


class Retention(Section):
    """What is removed, and how carefully. A table of any other name is one more rule: `[retention.NAME]`, below."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, NamedPolicy]

    undo_window: Delay = Field(
        DAY,
        description="Time for which removed files stay in the quarantine, so that `clean --undo` brings them back. "
        "Caches go at once, and so does everything while the disk is nearly full.",
        examples=["7d"],
    )
    require_snapshot: bool = Field(
        True, description="Whether a file goes only when a snapshot holds its content.", examples=[False]
    )
    keep_if_open: bool = Field(True, description="Whether a file that is open is left alone.", examples=[False])
    cache: CachePolicy = Field(CachePolicy(), description="Prompt caches.")
    history: HistoryPolicy = Field(HistoryPolicy(), description="Prompt history, a directory a day.")
    sessions: RetentionPolicy = Field(RetentionPolicy(), description="Sessions.")
    archives: ArchivesPolicy = Field(ArchivesPolicy(), description="Archived contexts, a directory an agent.")
    logs: RetentionPolicy = Field(RetentionPolicy(), description="Everything in the logs directory.")

    @property
    def named(self) -> dict[str, NamedPolicy]:
        """The rules of other names."""
        return self.__pydantic_extra__ or {}


class Quarantine(Section):
    """How long things stay that were moved to `.quarantine`. The newest one always does.

    What retention moved there goes when `retention.undo_window` is over, whatever these say.
    """

    max_age: AgeLimit = Field(30 * DAY, description="Age from which a thing goes for good.", examples=["90d"])
    max_bytes: SizeLimit = Field(
        5 * GIB, description="Size of all of it, above which the oldest goes, if it is older than a day.",
        examples=["20GiB"],
    )  # fmt: skip


class WaterMarks(Section):
    """Free space at which to warn and act (`high_water`), and up to which to go (`low_water`)."""

    high_water: PartOfDisk = Field(Share(percent=10), description="Act when less than this is free.", examples=["5%"])
    low_water: PartOfDisk = Field(Share(percent=15), description="Stop when this is free again.", examples=["20%"])


class InodeMarks(WaterMarks):
    """The same marks for inodes; an amount is a number of inodes."""


class Limits(WaterMarks):
    """Free space at which to warn and act (`high_water`), and up to which to go (`low_water`).

    They hold for the file systems of the tree and of a local repository.
    """

    inodes: InodeMarks = Field(InodeMarks(), description="The same for inodes.")


class LedgerLimits(Section):
    """What the daemon remembers of what it did (`events`, `status`)."""

    max_age: AgeLimit = Field(
        400 * DAY, description="Age from which an event or a run of a job is forgotten.", examples=["90d"]
    )
    max_events: Count = Field(
        1_000_000, description="Number of events above which the oldest are forgotten.", examples=[100_000]
    )
