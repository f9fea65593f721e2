"""What must be true, as far as it follows from what agents did."""

from dataclasses import dataclass, field

AGENTS = tuple(f"agent {number}" for number in range(8))
LOGS = ("logs/agents/a.log", "logs/agents/b.log", "logs/symbiont.log")
"""Logs that are opened for each line."""
HELD = ("logs/agents/held.log", "logs/audit/mode-b.jsonl")
"""Logs that a process of their own holds open in append mode."""


class Violation(AssertionError):
    """Something that must be true is not. `steps`: how many had been done."""

    def __init__(self, what: str, steps: int) -> None:
        super().__init__(what)
        self.steps = steps


@dataclass(slots=True)
class Model:
    """The state that agents are entitled to. Paths are relative to the root.

    `saved`: each agent's last acknowledged content; `broken`: those whose save was cut since. `lines`: how many lines
    were written to each log; `torn`: the rest of the last one, for which the disk had no room. `history`: executed
    prompts. `cached`: what may go, with a row in the ledger.
    """

    saved: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*LOGS, *HELD), 0))
    torn: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, bytes] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
