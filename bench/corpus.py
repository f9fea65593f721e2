"""The files that snapshots are made of: contexts as the runtime writes them, and vectors, which hardly compress."""

import json
import os
import random
import struct
import uuid
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

CONTEXTS, VECTOR_FILES, VECTOR_BYTES = 60_000, 8, 64 << 20
"""At full size."""


class Writer:
    """Writes contexts and vectors; the same seed gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        syllables = [a + b for a in "bcdfghlmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "ist")]
        self._words = sorted({"".join(self._random.choices(syllables, k=1 + n % 3)) for n in range(4000)})
        self._random.shuffle(self._words)
        self._weights = list(accumulate(1 / rank for rank in range(1, len(self._words) + 1)))  # as in any language

    def context(self, agent: str) -> bytes:
        """One agent's context: 3 to 6 KB of JSON."""
        chance, at = self._random, self._random.uniform(1.7e9, 1.8e9)
        turns = [self._turn(at - 60 * n) for n in range(chance.randint(2, 4))]
        items = [self._item(at) for _ in range(chance.randint(2, 4))]
        context = {
            "agent_id": agent,
            "session_id": self._id(),
            "memory": {
                "working_memory": {"variables": {"step": chance.randint(1, 9)}, "active_goals": [self._text(4)],
                                   "current_context": None, "attention_focus": []},
                "short_term": items[:2], "long_term": items[2:], "episodic_memory": [], "semantic_memory": [],
            },
            "knowledge_base": {"facts": [], "procedures": [], "learned_patterns": [], "shared_knowledge": [],
                               "domain_expertise": {}},
            "conversation_history": turns,
            "metadata": {},
            "created_at": _moment(at - 86_400),
            "updated_at": _moment(at),
            "retention_policy": {"session_retention": {"secs": 86_400, "nanos": 0},
                                 "memory_retention": {"secs": 604_800, "nanos": 0},
                                 "knowledge_retention": {"secs": 2_592_000, "nanos": 0},
                                 "auto_archive": True, "encryption_required": False},
        }  # fmt: skip
        return json.dumps(context, indent=2).encode()

    def vectors(self, size: int) -> bytearray:
        """Components of unit vectors as float32: the exponents are of a few values, the mantissas of any."""
        highest = bytes(struct.pack("<f", self._random.gauss(0, 0.03))[3] for _ in range(256))
        found = bytearray(self._random.randbytes(size))
        found[3::4] = self._random.randbytes(len(found[3::4])).translate(highest)
        return found

    def agent(self) -> str:
        """A new agent's id."""
        return self._id()

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _text(self, words: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=words))

    def _turn(self, at: float) -> dict[str, Any]:
        return {"id": self._id(), "role": self._random.choice(["User", "Agent", "Tool"]),
                "content": self._text(self._random.randint(15, 75)), "timestamp": _moment(at), "context_used": [],
                "knowledge_used": []}  # fmt: skip

    def _item(self, at: float) -> dict[str, Any]:
        return {"id": self._id(), "content": self._text(self._random.randint(15, 45)), "memory_type": "Episodic",
                "importance": round(self._random.random(), 3), "access_count": self._random.randint(0, 40),
                "last_accessed": _moment(at), "created_at": _moment(at - 3600), "embedding": None,
                "metadata": {}}  # fmt: skip


def _moment(at: float) -> dict[str, int]:
    return {"secs_since_epoch": int(at), "nanos_since_epoch": int(at % 1 * 1e9)}


def make(root: Path, scale: float) -> None:
    """The tree that is backed up."""
    writer = Writer(1)
    agents, collection = root / "state/agents", root / "vector_db/collections/memories"
    agents.mkdir(parents=True)
    collection.mkdir(parents=True)
    for _ in range(round(CONTEXTS * scale)):
        agent = writer.agent()
        (agents / f"{agent}.json").write_bytes(writer.context(agent))
    for number in range(VECTOR_FILES):
        (collection / f"segment-{number}.bin").write_bytes(writer.vectors(round(VECTOR_BYTES * scale)))


def change(root: Path, seed: int) -> int:
    """Rewrite 1 % of the contexts in place; returns how many."""
    writer = Writer(1000 + seed)
    files = sorted((root / "state/agents").iterdir())
    chosen = random.Random(seed).sample(files, max(len(files) // 100, 1))
    for file in chosen:
        file.write_bytes(writer.context(file.stem))
    return len(chosen)


def files_below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file: its path relative to the root, and its lstat."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            yield os.path.relpath(path, root), os.lstat(path)


def differences(a: Path, b: Path) -> list[str]:
    """The paths of files that differ in content, mode, owner or time of change, or that one of the two lacks."""
    ours, theirs = dict(files_below(a)), dict(files_below(b))
    return sorted(
        (ours.keys() ^ theirs.keys())
        | {path for path in ours.keys() & theirs.keys() if _facts(ours[path]) != _facts(theirs[path])}
        | {path for path in ours.keys() & theirs.keys() if (a / path).read_bytes() != (b / path).read_bytes()}
    )


def _facts(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns
