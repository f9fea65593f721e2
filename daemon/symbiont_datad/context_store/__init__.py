"""The library for agents in Python: contexts saved and loaded as the Symbiont runtime does it, and more safely.

The files are the runtime's own (1.19.0, `context/manager.rs`): names, JSON, gzip and backups are those that it writes
and reads. What it does not do is done here: a save is whole or not at all, a damaged context is loaded from its newest
good backup, and threads and processes that save one agent wait for each other. See docs/contexts.md.
"""

from symbiont_datad.context_store.document import (
    Context,
    ContextWarning,
    DamagedContext,
    InvalidContext,
    Loaded,
    NoContext,
    new_context,
    system_time,
)
from symbiont_datad.context_store.store import ContextStore

__all__ = [
    "Context",
    "ContextStore",
    "ContextWarning",
    "DamagedContext",
    "InvalidContext",
    "Loaded",
    "NoContext",
    "new_context",
    "system_time",
]
