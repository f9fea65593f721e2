"""`FilePersistenceConfig` as agents get it: the settings' own, and the migration, which lies above the settings."""

import os
from typing import Self

from symbiont_datad import settings
from symbiont_datad.errors import DatadError
from symbiont_datad.report import Severity


class MigrationError(DatadError):
    """Not all of a legacy place came over; each line names a file and why. What came over stays, and can be undone."""


class _Unseen:
    files = bytes = 0
    current = ""

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Nobody looks."""


class FilePersistenceConfig(settings.FilePersistenceConfig):
    """Where Symbiont keeps its files: the eleven settings that the runtime's own configuration has.

    Frozen. The path methods are cached and may be called from any thread; none of them touches the disk.
    """

    @classmethod
    def migrate_from_legacy(cls, path: str | os.PathLike[str]) -> Self:
        """Bring the contexts of a legacy `storage_path` into the tree, and hand back where they are now.

        The same as `symbiont-datad migrate --from PATH --yes`, by the daemon's own settings: contexts in the mode in
        force, backups and archives too, both sides kept where they differ, nothing removed from the old place. May be
        called again; what is there already is not brought twice. The tree's directories are made. A path at which
        nothing is, is nothing to migrate.

        Raises MigrationError; another DatadError when it can't begin (SettingsError, Locked, no room); OSError.
        """
        from symbiont_datad.migrate.detect import named_sources
        from symbiont_datad.migrate.migration import alone, migrate_source, open_journal, refuse_overlap, source_path
        from symbiont_datad.migrate.target import target_of

        loaded = settings.load().settings
        config = cls(**{name: getattr(loaded, name) for name in cls.model_fields})
        place = os.path.abspath(os.path.expanduser(path))
        config.ensure_directories()
        if not os.path.lexists(place):
            return config
        target = target_of(loaded)
        real = source_path(place, target)
        refuse_overlap(real, target)
        problems = []
        with alone(target), open_journal(target) as journal:
            for source in named_sources(real):
                result = migrate_source(source, target, journal, _Unseen())
                problems += [one for one in result.findings if one.severity is not Severity.INFO]
        left = [f"{one.path}: {one.detail}" for one in problems if _is_left(one.kind)]
        if left:
            raise MigrationError("\n".join(left))
        return config


def _is_left(kind: str) -> bool:
    """Whether a finding tells of a file that did not come over; damaged ones did, to quarantine."""
    return kind in ("legacy_unread", "legacy_busy", "legacy_mount")
