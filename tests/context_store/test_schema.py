"""What the store writes has the fields that the runtime asks for, by a list that is written down here once more."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad import ContextStore, FilePersistenceConfig, new_context
from tests import contexts

TIME = {"secs_since_epoch": int, "nanos_since_epoch": int}
SPAN = {"secs": int, "nanos": int}
ITEM = {
    "id": str, "content": str, "memory_type": str, "importance": (int, float), "access_count": int,
    "last_accessed": TIME, "created_at": TIME, "embedding": (list, type(None)), "metadata": dict,
}  # fmt: skip
TURN = {"id": str, "role": str, "content": str, "timestamp": TIME, "context_used": list, "knowledge_used": list}
CONTEXT = {
    "agent_id": str,
    "session_id": str,
    "memory": {
        "working_memory": {
            "variables": dict, "active_goals": list, "current_context": (str, type(None)), "attention_focus": list,
        },
        "short_term": [ITEM], "long_term": [ITEM], "episodic_memory": list, "semantic_memory": list,
    },
    "knowledge_base": {
        "facts": list, "procedures": list, "learned_patterns": list, "shared_knowledge": list,
        "domain_expertise": dict,
    },
    "conversation_history": [TURN],
    "metadata": dict,
    "created_at": TIME,
    "updated_at": TIME,
    "retention_policy": {
        "session_retention": SPAN, "memory_retention": SPAN, "knowledge_retention": SPAN,
        "auto_archive": bool, "encryption_required": bool,
    },
}  # fmt: skip
"""Every field of a context and the kind of its value, as version 1.19.0 of the runtime has them."""


def problems(value: Any, schema: Any, where: str = "$") -> list[str]:
    """Where a value differs from a schema: fields, lists of one kind, kinds."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [where]
        found = [f"{where}.{name}" for name in schema if name not in value]
        there = [name for name in schema if name in value]
        return found + [one for name in there for one in problems(value[name], schema[name], f"{where}.{name}")]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [where]
        return [one for item in value for one in problems(item, schema[0], f"{where}[]")]
    return [] if isinstance(value, schema) else [where]


def saved(root: Path, context: dict[str, Any], zipped: bool) -> Any:
    """A context that the store has saved, read without the store."""
    ContextStore(FilePersistenceConfig(root_data_dir=root, enable_compression=zipped)).save(context)
    name = f"{context['agent_id']}.json{'.gz' if zipped else ''}"
    data = (root / "state/agents" / name).read_bytes()
    return json.loads(gzip.decompress(data) if zipped else data)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_saved_passes_the_check(tmp_path: Path, zipped: bool) -> None:
    """A new context, an edited one, and one with every kind of item."""
    for context in (new_context(), contexts.context("agent")):
        assert [] == problems(saved(tmp_path, context, zipped), CONTEXT)
    store = ContextStore(FilePersistenceConfig(root_data_dir=tmp_path, enable_compression=zipped))
    with store.edit(contexts.agent_id("agent")) as context:
        context["conversation_history"].append(contexts.turn(contexts.AT, "more"))
    assert [] == problems(store.load(contexts.agent_id("agent")).context, CONTEXT)


def drop(value: Any, path: list[str]) -> Any:
    """A copy of a document without one field; a `[]` in the path is the first item of a list."""
    name, *rest = path
    if name == "[]":
        return [drop(value[0], rest), *value[1:]]
    return {key: drop(inner, rest) if key == name and rest else inner for key, inner in value.items()
            if key != name or rest}  # fmt: skip


def paths(schema: Any) -> list[list[str]]:
    """The way to every field of a schema."""
    if isinstance(schema, list):
        return [["[]", *rest] for rest in paths(schema[0])]
    if not isinstance(schema, dict):
        return []
    return [[name, *rest] for name, inner in schema.items() for rest in ([], *paths(inner))]


OPTIONAL = {"current_context", "embedding"}


@pytest.mark.parametrize("path", paths(CONTEXT), ids=".".join)
def test_each_field_is_asked_for(tmp_path: Path, path: list[str]) -> None:
    """The check and the store agree on every field: without it neither takes the context, unless it is optional."""
    whole = contexts.context("agent")
    whole["memory"]["long_term"] = whole["memory"]["short_term"]
    less = drop(whole, path)
    assert problems(less, CONTEXT) == ["$" + "".join(f".{name}" for name in path).replace(".[]", "[]")]
    if path[-1] in OPTIONAL:
        assert less == saved(tmp_path, less, True)
        return
    with pytest.raises(ValueError, match=path[-1]):
        saved(tmp_path, less, True)


def test_what_passes_the_check_is_loaded(tmp_path: Path) -> None:
    """A context of these fields alone, and of these and more."""
    agents = tmp_path / "state/agents"
    agents.mkdir(parents=True)
    store = ContextStore(FilePersistenceConfig(root_data_dir=tmp_path))
    for name, more in (("plain", {}), ("more", {"added_later": {"x": 1}})):
        context = {**contexts.context(name), **more}
        assert [] == problems(context, CONTEXT)
        (agents / f"{contexts.agent_id(name)}.json.gz").write_bytes(contexts.zipped(context))
        assert (context, "") == (store.load(contexts.agent_id(name)).context, store.load(contexts.agent_id(name)).note)
