"""A context as agents have it in hand: JSON, made, checked and written out."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

from symbiont_datad.errors import DatadError
from symbiont_datad.formats.schema import AgentContext, problem_of

Context = dict[str, Any]
"""A context as it is in JSON. Fields that this version doesn't know stay in it."""


class NoContext(DatadError):
    """There is no context of that agent."""


class InvalidContext(DatadError, ValueError):
    """What should be saved is no context that the runtime would load. The message names the field."""


class DamagedContext(DatadError):
    """A context is damaged, and no backup of it is whole."""


class ContextWarning(UserWarning):
    """A context was not loaded from the file that it should be in."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A context, and where it comes from: `path`. `note` says what was wrong with the file that it should be in."""

    context: Context
    path: Path
    note: str = ""


def system_time(seconds: float) -> dict[str, int]:
    """A point in time (seconds since the epoch), as contexts have it."""
    whole = int(seconds)
    return {"secs_since_epoch": whole, "nanos_since_epoch": min(round((seconds - whole) * 1e9), 999_999_999)}


def new_context(agent_id: str | UUID | None = None) -> Context:
    """An empty context, of a new agent unless one is given, with the runtime's own defaults."""
    now = time.time()
    return {
        "agent_id": str(uuid4()) if agent_id is None else id_of(agent_id),
        "session_id": str(uuid4()),
        "memory": {
            "working_memory": {
                "variables": {}, "active_goals": [], "current_context": None, "attention_focus": [],
            },
            "short_term": [], "long_term": [], "episodic_memory": [], "semantic_memory": [],
        },
        "knowledge_base": {
            "facts": [], "procedures": [], "learned_patterns": [], "shared_knowledge": [], "domain_expertise": {},
        },
        "conversation_history": [],
        "metadata": {},
        "created_at": system_time(now),
        "updated_at": system_time(now),
        "retention_policy": {
            "session_retention": {"secs": 86_400, "nanos": 0},
            "memory_retention": {"secs": 604_800, "nanos": 0},
            "knowledge_retention": {"secs": 2_592_000, "nanos": 0},
            "auto_archive": True,
            "encryption_required": True,
        },
    }  # fmt: skip


def written(context: Mapping[str, Any]) -> tuple[str, bytes]:
    """A context's agent, and its text as the runtime writes it (serde_json, pretty).

    Raises InvalidContext when the runtime would not load it: one such context keeps it from starting.
    """
    try:
        text = json.dumps(context, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidContext(f"it can't be written as JSON: {error}") from None
    if problem := problem_of(text, AgentContext):
        raise InvalidContext(problem)
    return id_of(context["agent_id"]), msgspec.json.format(text, indent=2)


def id_of(agent_id: str | UUID) -> str:
    """An agent's id as the runtime spells it. Raises InvalidContext: it does not list files of other names."""
    try:
        return str(agent_id if isinstance(agent_id, UUID) else UUID(agent_id))
    except ValueError:
        raise InvalidContext(f"an agent's id must be a UUID, and is {agent_id!r}") from None
