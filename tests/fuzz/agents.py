"""Targets: what agents write, and what is made of it."""

import gzip
import json
import os
import warnings
from contextlib import suppress
from functools import lru_cache

from symbiont_datad.context_store import ContextStore, ContextWarning, DamagedContext, NoContext
from symbiont_datad.formats import (
    age,
    cached,
    context,
    diff,
    execution,
    state_name,
)
from symbiont_datad.settings import FilePersistenceConfig
from tests import contexts
from tests.fuzz.engine import Target
from tests.fuzz.pieces import JSON, scratch


def _context(data: bytes) -> None:
    for document in context.Document:
        for zipped in (None, True, False):
            verdict = context.judge(data, gzip=zipped, document=document)
            if verdict.good and document is not context.Document.ANY:
                json.loads(context.text_of(data), parse_int=str)
    context.resembles_context(data)
    diff.readable(data)
    list(diff.difference(data, context_seeds()[0], "a", "b"))
    diff.changes(data, context_seeds()[0])
    execution.read_execution(data)
    cached.damage("a.json", data)


@lru_cache
def context_seeds() -> list[bytes]:
    one = contexts.context("agent")
    return [
        contexts.plain(one),
        contexts.zipped(one),
        b"{}",
        b'{"template":"t","latency_ms":7,"metadata":{"latency":{"secs":1}}}',
    ]


def _zipped_context(data: bytes) -> None:
    _context(gzip.compress(data, 1, mtime=0))


@lru_cache
def _identity() -> str:
    return age.new_identity()


def _sealed_context(data: bytes) -> None:
    """What is not sealed yet is sealed here."""
    sealed = data if data.startswith(b"age-encryption.org/") else age.seal(data, age.recipient_of(_identity()))
    for zipped in (True, False, None):
        verdict = context.judge_sealed(sealed, lambda text: age.unseal(text, _identity()), gzip=zipped)
        if verdict.good and not verdict.unopened:
            json.loads(context.text_of(age.unseal(sealed, _identity()) or b""), parse_int=str)
    with suppress(age.NoIdentity):
        age.read_identity(data)


def _sealed_seeds() -> list[bytes]:
    plain = context_seeds()
    return [*plain, *(age.seal(one, age.recipient_of(_identity())) for one in plain), f"{_identity()}\n".encode()]


def _store(data: bytes) -> None:
    """A context is loaded by the library."""
    agent = contexts.agent_id("agent")
    with scratch() as folder:
        agents = folder / "data/state/agents"
        agents.mkdir(parents=True)
        name = state_name.context_name(agent, gzip=data.startswith(b"\x1f\x8b"))
        (agents / name).write_bytes(data)
        os.utime(agents / name, (1e9, 1e9))  # nobody is writing it, so nobody is waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ContextWarning)
            ContextStore(FilePersistenceConfig(root_data_dir=folder / "data")).load(agent)


TARGETS = (
    Target("context", _context, context_seeds, (), JSON),
    Target("context-gzip", _zipped_context, context_seeds, (), JSON),
    Target(
        "context-sealed", _sealed_context, _sealed_seeds, (),
        (*JSON, b"age-encryption.org/v1\n", b"-> X25519 ", b"\n--- "),
    ),
    Target("context-store", _store, context_seeds, (NoContext, DamagedContext), JSON),
)  # fmt: skip
