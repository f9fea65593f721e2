"""Jobs: what is done on a timetable. A job is a function from a context to a report, one file each.

`JOBS` is the table of them. A row names the function by its module, so that reading the table imports no job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from symbiont_datad.jobs.context import JobContext
from symbiont_datad.report import JobReport

JobFunction = Callable[[JobContext], JobReport]


@dataclass(frozen=True, slots=True)
class Job:
    """One row: the job's name (also its function's name), its module, and what it does, in words.

    `opens`: whether it always opens the repository. `lock`: the job whose lock it takes, so that the two never run at
    once; empty for its own.
    """

    name: str
    module: str
    purpose: str
    opens: bool = False
    lock: str = ""

    def load(self) -> JobFunction:
        """Import the function."""
        function: JobFunction = getattr(import_module(self.module), self.name)
        return function


JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job(
            "sweep",
            "symbiont_datad.jobs.sweep",
            "checks changed state files, heals contexts, rotates the runtime's backups, saves a snapshot",
        ),
        Job("templates", "symbiont_datad.jobs.templates", "saves the prompt templates that changed, as versions"),
        Job("rotate", "symbiont_datad.jobs.rotate", "rotates the logs that are due, removes their old archives"),
        Job("clean", "symbiont_datad.jobs.clean", "removes what the retention rules say"),
        Job("relieve", "symbiont_datad.jobs.relieve", "makes room when the disk is nearly full"),
        Job("undo", "symbiont_datad.jobs.undo", "brings back what retention has removed", lock="clean"),
        Job(
            "backup",
            "symbiont_datad.jobs.backup",
            "makes a snapshot of the tree, forgets old ones, frees space",
            opens=True,
        ),
        Job(
            "verify",
            "symbiont_datad.jobs.verify",
            "checks the repository, reads a part of it, tries a restore",
            opens=True,
        ),
        Job("prune", "symbiont_datad.jobs.prune", "forgets what the policy does not keep, frees space", opens=True),
        Job("vectors", "symbiont_datad.jobs.vectors", "looks at the vector collections, keeps what is known of them"),
        Job("optimize", "symbiont_datad.jobs.optimize", "gives back the space that vector collections don't need"),
        Job("migrate", "symbiont_datad.jobs.migrate", "brings data of before the tree over"),
        Job("usage", "symbiont_datad.jobs.usage", "measures the tree, keeps the modes of files"),
    )
}
