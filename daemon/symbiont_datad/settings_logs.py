"""The section `[logs]`: how logs are rotated."""

from typing import Annotated, Literal

from pydantic import Field

from symbiont_datad.quantities import MIB
from symbiont_datad.settings_types import AgeLimit, CountLimit, Patterns, Section, Size, SizeLimit, Unit


class LogLimits(Section):
    """When a log is rotated, and which of its archives stay."""

    rotate_at: SizeLimit = Field(None, description="Size from which a log is rotated.", examples=["10MiB"])
    rotate_every: AgeLimit = Field(None, description="Age from which a log is rotated.", examples=["7d"])
    rotate_min: Size | None = Field(
        None, description="Size below which a log is not rotated for its age.", examples=["1KiB"]
    )
    keep: CountLimit = Field(None, description="Number of archives to keep of each log.", examples=[5])
    max_age: AgeLimit = Field(None, description="Age from which an archive is removed.", examples=["90d"])
    max_total: SizeLimit = Field(
        None, description="Size of all archives together, above which the oldest go.", examples=["5GiB"]
    )


class LogsRule(LogLimits):
    """Other limits for some logs. Of several rules the first that matches counts, and what it leaves unset is as in
    `[logs]`. Archives of audit logs are removed only by a rule whose pattern names them, as `audit/*.log`.
    """

    patterns: Patterns = Field(
        description="The logs that it is about, relative to the logs directory.", examples=[["agents/**/*.log"]]
    )


class Logs(LogLimits):
    """Rotation of the log files below the logs directory."""

    patterns: Patterns = Field(
        ("**/*.log", "**/*.jsonl"), description="Files to rotate, relative to the logs directory.",
        examples=[["**/*.log"]],
    )  # fmt: skip
    rotate_at: SizeLimit = Field(50 * MIB, description="Size from which a log is rotated.", examples=["10MiB"])
    rotate_min: Size = Field(1, description="Size below which a log is not rotated for its age.", examples=["1KiB"])
    keep: CountLimit = Field(
        10,
        description="Number of archives to keep of each log. Those of audit logs all stay, unless a `[[logs.rule]]` "
        "names them.",
        examples=[5],
    )
    compress: Literal["zstd", "gzip", "none"] = Field(
        "zstd", description="How archives are compressed.", examples=["gzip"]
    )
    delay_compress: bool = Field(
        False, description="Whether the latest archive of a log stays uncompressed.", examples=[True]
    )
    allow_copytruncate: bool = Field(
        False,
        description="Whether a log that a process holds open may be copied and cut where nothing better is possible: "
        "lines that are written during the cut are lost.",
        examples=[True],
    )
    reopened: Patterns = Field(
        (),
        description="Logs whose writers open them for each append, relative to the logs directory. They are rotated "
        "by renaming, even when not every process can be seen.",
        examples=[["audit/*.log"]],
    )
    appended: Patterns = Field(
        (),
        description="Logs whose writers hold them open in append mode, relative to the logs directory. They are "
        "trusted where the writers can't be seen, as those in another container.",
        examples=[["agents/*.jsonl"]],
    )
    rule: Annotated[tuple[LogsRule, ...], Unit("plain", "tables, or a JSON list of them")] = Field(
        (), description="Other limits for some logs.", examples=[[{"patterns": ["agents/*.log"], "keep": 3}]]
    )
