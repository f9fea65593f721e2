"""Records of executed prompts: what they tell, in whatever shape they come."""

import gzip
import json
import random

import pytest

from symbiont_datad.formats.execution import Execution, read_execution


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"template": "triage", "latency_ms": 12, "output": "text"}, Execution("triage", 12.0)),
        ({"template_name": "a  b\n", "duration_s": 1.5}, Execution("a b", 1500.0)),
        ({"prompt_template": {"name": "nested", "version": 3}}, Execution("nested", None)),
        ({"template": {"id": "by-id"}, "duration": {"secs": 2, "nanos": 5 * 10**8}}, Execution("by-id", 2500.0)),
        ({"metadata": {"template": "inner", "latency_ms": 7}}, Execution("inner", 7.0)),
        ({"template": "t" * 500}, Execution("t" * 100, None)),
        ({"template": 5, "latency_ms": "soon"}, Execution("", None)),
        ({"template": "t", "latency": 3}, Execution("t", None)),
        ({"template": "t", "latency_ms": True}, Execution("t", None)),
        ({"template": "t", "latency_ms": -1}, Execution("t", None)),
        ({"template": "t", "latency_ms": 10**12}, Execution("t", None)),
        ({"template": "t", "metadata": "none"}, Execution("t", None)),
        ({}, Execution("", None)),
        ([1, 2], Execution("", None)),
        ("text", Execution("", None)),
    ],
)
def test_what_a_record_tells(record: object, expected: Execution) -> None:
    """The template's name and the latency in milliseconds, where they can be understood; gzip is opened."""
    data = json.dumps(record).encode()
    assert expected == read_execution(data)
    assert expected == read_execution(gzip.compress(data))


def test_whatever_it_is_nothing_happens() -> None:
    """Damage of every kind is a record that tells nothing, or less."""
    whole = json.dumps({"template": "triage", "latency_ms": 5, "metadata": {"a": [1, {"b": None}]}}).encode()
    for data in (b"", b"\0" * 100, b"\xff\xfe", b"[" * 100_000, whole[:-1], gzip.compress(whole)[:-9]):
        assert isinstance(read_execution(data), Execution)
    chance = random.Random(5)
    for _ in range(2000):
        broken = bytearray(gzip.compress(whole, mtime=0) if chance.random() < 0.5 else whole)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        assert isinstance(read_execution(bytes(broken)), Execution)
