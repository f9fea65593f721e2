"""Which rule a file is the business of: exactly one, the most precise one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.retention.rules import Reach, Rule

LOGS = Rule("logs", "logs", max_files=1)
DEBUG = Rule("debug", "logs", max_files=1, patterns=("**/debug-*",))
TRACE = Rule("trace", "logs", max_files=1, patterns=("**/*.trace", "**/debug-*.log"))
AGENTS = Rule("agents", "logs/agents", max_files=1)
PICKED = Rule("picked", "logs/agents", max_files=1, patterns=("*.json",))
AUDIT = Rule("audit", "logs/audit", max_files=1)


def business_of(path: str, rules: list[Rule]) -> list[str]:
    """The names of the rules that a file is the business of."""
    return [
        rule.name for rule in rules if path.startswith(rule.prefix) and Reach(rule, rules, ["logs/audit"]).takes(path)
    ]


@pytest.mark.parametrize(
    ("path", "rules", "expected"),
    [
        ("logs/a.log", [LOGS], ["logs"]),
        ("logs/agents/a.log", [LOGS, AGENTS], ["agents"]),
        ("logs/agentssmith/a.log", [LOGS, AGENTS], ["logs"]),
        ("logs/x/debug-1", [LOGS, DEBUG], ["debug"]),
        ("logs/x/debug-1.log", [LOGS, TRACE, DEBUG], ["trace"]),
        ("logs/x/debug-1.log", [LOGS, DEBUG, TRACE], ["debug"]),
        ("logs/agents/debug-1", [LOGS, DEBUG, AGENTS], ["agents"]),
        ("logs/agents/debug-1", [LOGS, DEBUG, PICKED], ["debug"]),
        ("logs/agents/a.json", [LOGS, AGENTS, PICKED], ["picked"]),
        ("logs/agents/b/a.json", [LOGS, PICKED], ["logs"]),
        ("logs/audit/security.log", [LOGS], []),
        ("logs/audit/debug-1", [LOGS, DEBUG], []),
        ("logs/audit/security.log", [LOGS, AUDIT], ["audit"]),
    ],
)
def test_the_most_precise_rule_has_it(path: str, rules: list[Rule], expected: list[str]) -> None:
    """The deepest directory wins, then the first patterns that match; the audit log needs a rule of its own."""
    assert expected == business_of(path, rules)


@pytest.mark.parametrize(
    ("options", "bounded", "active"),
    [
        ({}, False, False),
        ({"max_age_s": 0.0}, True, True),
        ({"max_bytes": 0}, True, True),
        ({"max_files": 0}, True, True),
        ({"broken": True}, False, True),
        ({"pack_after_s": 0.0}, False, True),
        ({"cache": True, "keep_newest": True, "whole": True, "protect": ("x",)}, False, False),
    ],
)
def test_a_rule_that_asks_for_nothing_is_none(options: Any, bounded: bool, active: bool) -> None:
    """One bound is enough, be it nought; broken files and days to be packed are work without a bound."""
    rule = Rule("r", "d", **options)
    assert (bounded, active) == (rule.bounded, rule.active)


def test_a_plain_reach_has_no_patterns_in_it() -> None:
    """Then whole directories can be taken without a look at each name."""
    pairs = [(one, other) for one in (LOGS, DEBUG) for other in (AGENTS, PICKED)]
    assert [True, False, False, False] == [Reach(one, [one, other]).plain for one, other in pairs]


NAMES = st.sampled_from(["", "a", "a/b", "a/b/c", "b"])
PATTERNS = st.sampled_from([(), ("*",), ("**/x",), ("b",), ("**/*x*", "c/**")])


@given(
    rules=st.lists(st.builds(Rule, st.text("r", min_size=1), NAMES, patterns=PATTERNS), max_size=5, unique=True),
    path=st.lists(st.sampled_from(["a", "b", "c", "x", "xy"]), min_size=1, max_size=4).map("/".join),
)
def test_a_file_is_the_business_of_one_rule_at_most(rules: list[Rule], path: str) -> None:
    """However rules overlap, no file has two, and one that some rule matches is not forgotten."""
    named = [Rule(f"{number}", rule.directory, patterns=rule.patterns) for number, rule in enumerate(rules)]
    seen = {(rule.directory, rule.patterns == ()) for rule in named}
    if len([rule for rule in named if not rule.patterns]) > len([key for key in seen if key[1]]):
        return  # two rules about all of one directory: the settings refuse that
    about = [rule for rule in named if path.startswith(rule.prefix) and Reach(rule, [rule]).takes(path)]
    assert min(len(about), 1) == len(business_of(path, named))
