"""Everything that parses what others may have written: the table of targets. Each of its parts is a module.

What is sealed is given its seal in the target, so that inputs get past it: the question is what a reader makes of
content that somebody with the key, or a bug, has written.
"""

from tests.fuzz import agents, asked, legacy, own, repository, settings, strangers

TARGETS = (
    *settings.TARGETS, *repository.TARGETS, *agents.TARGETS, *own.TARGETS, *strangers.TARGETS, *legacy.TARGETS,
    *asked.TARGETS,
)  # fmt: skip
"""Each has a short run in the tests; `scripts/fuzz` lets it run for long."""
