"""symbiont-datad keeps the Symbiont data directory.

Agent code imports its settings and paths from here::

    from symbiont_datad import ContextStore, FilePersistenceConfig

The import is lazy, so that the daemon's job processes, which need no settings model, stay small.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symbiont_datad.context_store import ContextStore, new_context
    from symbiont_datad.migrate.persistence import FilePersistenceConfig

__version__ = "0.1.0"

__all__ = ["ContextStore", "FilePersistenceConfig", "__version__", "new_context"]


def __getattr__(name: str) -> object:
    if name == "FilePersistenceConfig":
        from symbiont_datad.migrate.persistence import FilePersistenceConfig

        return FilePersistenceConfig
    if name in ("ContextStore", "new_context"):
        from symbiont_datad import context_store

        return getattr(context_store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
