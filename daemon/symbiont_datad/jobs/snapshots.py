"""Choosing snapshots: all that can be read, or the one that a user named."""

from symbiont_datad.errors import DatadError
from symbiont_datad.report import printable
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Missing
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository

Named = tuple[str, Snapshot]

LATEST = "latest"


def readable_snapshots(repository: Repository) -> tuple[list[Named], list[tuple[str, str]]]:
    """The snapshots with their ids, the oldest first; and those that can't be read, with the reason.

    Raises RepositoryError when the repository itself can't be read.
    """
    found: list[Named] = []
    unread: list[tuple[str, str]] = []
    for name, _ in repository.backend.list(FileKind.SNAPSHOT):
        try:
            snapshot = repository.snapshot(name)
            snapshot.at  # noqa: B018  # a time that can't be read raises here
        except Missing:
            continue  # forgotten meanwhile
        except Damaged as error:
            unread.append((name, str(error)))
        except ValueError:
            unread.append((name, f"snapshots/{name}: its time can't be read"))
        else:
            found.append((name, snapshot))
    found.sort(key=lambda one: (one[1].at, one[0]))
    return found, unread


def chosen(snapshots: list[Named], wanted: str) -> Named:
    """The snapshot that begins with `wanted`, or the newest for `latest`; `snapshots` has the oldest first.

    Raises DatadError when there is none, or more than one.
    """
    if wanted == LATEST:
        if not snapshots:
            raise DatadError("there is no snapshot")
        return snapshots[-1]
    found = [one for one in snapshots if wanted and one[0].startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} snapshots begin" if found else "no snapshot begins"
        raise DatadError(f"{what} with {printable(wanted)!r}; `symbiont-datad snapshots` lists them")
    return found[0]
