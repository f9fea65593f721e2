"""What a probe hands up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from symbiont_datad.report import Finding

Fact = str | int | float | bool | None | tuple[str, ...] | Mapping[str, str]
"""A value in JSON: sizes in bytes, times in seconds since the epoch where the name ends in `_at`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one probe saw. `told` is one line for people, `facts` are the same and more for programs.

    The path of a finding is absolute, or empty when it is about nothing that has a path.
    """

    probe: str
    told: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
