"""Contexts and archives as the Symbiont runtime writes them (1.19.0, `context/types.rs`), with every kind of item."""

import gzip
import json
import uuid
from typing import Any

AT = 1_794_900_000.25
"""When a context was last changed, in seconds since the epoch, unless a test says otherwise."""


def agent_id(name: str) -> str:
    """A UUID made of a name: the same one for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def system_time(seconds: float) -> dict[str, int]:
    """A point in time as serde writes it."""
    return {"secs_since_epoch": int(seconds), "nanos_since_epoch": round(seconds % 1 * 1e9)}


def memory_item(at: float, number: int) -> dict[str, Any]:
    """One memory; every other one has an embedding."""
    return {
        "id": agent_id(f"memory {number}"),
        "content": "naïve ✓ 😀",
        "memory_type": "Factual",
        "importance": 0.5,
        "access_count": number,
        "last_accessed": system_time(at),
        "created_at": system_time(at),
        "embedding": [0.25, -1, 1e-7] if number % 2 else None,
        "metadata": {"source": "chat"},
    }


def memory(at: float) -> dict[str, Any]:
    """Every kind of memory."""
    return {
        "working_memory": {
            "variables": {"step": 3, "deep": {"any": [None, True, "x"]}},
            "active_goals": ["answer"],
            "current_context": None,
            "attention_focus": [],
        },
        "short_term": [memory_item(at, 1), memory_item(at, 2)],
        "long_term": [],
        "episodic_memory": [
            {
                "id": agent_id("episode"),
                "title": "t",
                "description": "d",
                "events": [{"action": "a", "result": "r", "timestamp": system_time(at), "context": {"k": "v"}}],
                "outcome": "done",
                "lessons_learned": ["l"],
                "timestamp": system_time(at),
                "importance": 1.0,
            }
        ],
        "semantic_memory": [
            {
                "id": agent_id("concept"),
                "concept": "c",
                "relationships": [
                    {"relation_type": "IsA", "target_concept": "x", "strength": 0.1, "bidirectional": False},
                    {"relation_type": {"Custom": "likes"}, "target_concept": "y", "strength": 1, "bidirectional": True},
                ],
                "properties": {"any": 1},
                "confidence": 0.5,
                "created_at": system_time(at),
                "updated_at": system_time(at),
            }
        ],
    }


def knowledge(at: float) -> dict[str, Any]:
    """Every kind of knowledge."""
    return {
        "facts": [
            {
                "id": agent_id("fact"),
                "subject": "s",
                "predicate": "p",
                "object": "o",
                "confidence": 0.9,
                "source": source,
                "created_at": system_time(at),
                "verified": True,
            }
            for source in ("Experience", {"SharedFromAgent": agent_id("other")}, {"ExternalDocument": "a.pdf"})
        ],
        "procedures": [
            {
                "id": agent_id("procedure"),
                "name": "n",
                "description": "d",
                "steps": [{"order": 1, "action": "a", "expected_result": "r", "error_handling": None}],
                "preconditions": [],
                "postconditions": ["p"],
                "success_rate": 1.0,
            }
        ],
        "learned_patterns": [
            {
                "id": agent_id("pattern"),
                "name": "n",
                "description": "d",
                "conditions": [],
                "outcomes": [],
                "confidence": 0.5,
                "occurrences": 4,
            }
        ],
        "shared_knowledge": [
            {
                "knowledge_id": agent_id("shared"),
                "source_agent": agent_id("other"),
                "shared_at": system_time(at),
                "access_level": "Public",
                "trust_score": 0.5,
            }
        ],
        "domain_expertise": {"support": "Advanced"},
    }


def turn(at: float, text: str = "hello") -> dict[str, Any]:
    """One turn of a conversation."""
    return {
        "id": agent_id(text),
        "role": "User",
        "content": text,
        "timestamp": system_time(at),
        "context_used": [agent_id("memory 1")],
        "knowledge_used": [],
    }


def context(name: str = "agent", at: float = AT, text: str = "naïve ✓", **other: Any) -> dict[str, Any]:
    """A context; `other` are outer fields."""
    return {
        "agent_id": agent_id(name),
        "session_id": agent_id("session"),
        "memory": memory(at),
        "knowledge_base": knowledge(at),
        "conversation_history": [turn(at, text)],
        "metadata": {"name": text},
        "created_at": system_time(at - 86400),
        "updated_at": system_time(at),
        "retention_policy": {
            "session_retention": {"secs": 86400, "nanos": 0},
            "memory_retention": {"secs": 604800, "nanos": 0},
            "knowledge_retention": {"secs": 2592000, "nanos": 500},
            "auto_archive": True,
            "encryption_required": False,
        },
        **other,
    }


def archive(name: str = "agent", at: float = AT) -> dict[str, Any]:
    """An archive."""
    return {
        "agent_id": agent_id(name),
        "archived_at": system_time(at),
        "archive_reason": "Archiving items before …",
        "memory": memory(at),
        "conversation_history": [turn(at)],
        "knowledge_base": knowledge(at),
        "metadata": {},
    }


def plain(value: Any) -> bytes:
    """JSON as serde_json's pretty printer writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def zipped(value: Any) -> bytes:
    """The same in gzip."""
    return gzip.compress(plain(value), mtime=0)
