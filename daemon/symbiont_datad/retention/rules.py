"""Retention of one directory by age, number and size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """How much of what lies below `directory` (relative to the root) is kept. None means: without a bound.

    `max_age_s` is in seconds, `max_bytes` in bytes. `name` is the section of the settings that made the rule.
    """

    name: str
    directory: str
    max_age_s: float | None = None
    max_bytes: int | None = None
    max_files: int | None = None

    @property
    def active(self) -> bool:
        """Whether the rule can remove anything at all."""
        return (self.max_age_s, self.max_bytes, self.max_files) != (None, None, None)
