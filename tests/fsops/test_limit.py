"""The memory that a group of processes may take, and who goes first when it is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

from symbiont_datad.fsops import limit
from symbiont_datad.fsops.limit import memory_limit


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"": "100000000"}, 100_000_000),
        ("0::/\n", {"": "max"}, None),
        ("0::/\n", {}, None),
        ("0::/system.slice/x.service\n", {"system.slice/x.service": "max", "system.slice": "5000"}, 5000),
        ("0::/a/b\n", {"a/b": "7000", "a": "9000", "": "max"}, 7000),
        ("12:memory:/docker/x\n0::/\n", {"": "4096"}, 4096),
        ("12:memory:/docker/x\n", {}, None),
        ("4:memory:/docker/x\n0::/docker/x\n", {"memory": "100663296"}, 100_663_296),
        ("4:cpu,memory:/x\n", {"memory/x": "5000", "memory": "9223372036854771712"}, 5000),
        ("4:memory:/\n", {"memory": "9223372036854771712"}, None),
        ("0::/../other\n", {"": "4096"}, 4096),
    ],
)
def test_the_least_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limits: dict[str, str], expected: int | None
) -> None:
    """That of the group itself or of one around it; none where nothing limits."""
    groups = tmp_path / "cgroup"
    for path, text in limits.items():
        (groups / path).mkdir(parents=True, exist_ok=True)
        name = "memory.limit_in_bytes" if path.startswith("memory") else "memory.max"
        (groups / path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(limit, "_CGROUPS", groups)
    monkeypatch.setattr(limit, "_OWN", tmp_path / "own")
    assert expected == memory_limit()


def test_without_groups_there_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that has none."""
    monkeypatch.setattr(limit, "_OWN", tmp_path / "missing")
    assert memory_limit() is None


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: scores are Linux's")
def test_who_goes_first() -> None:
    """A process that asked for it has a high score, and so have its children; one that had a higher one keeps it."""
    asks = "from symbiont_datad.fsops.limit import go_first; go_first()"
    code = f"{asks}; import os; os.system('cat /proc/self/oom_score_adj')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 500 == int(found)
    raised = f"open('/proc/self/oom_score_adj', 'w').write('700'); {code}"
    found = subprocess.run([sys.executable, "-c", raised], capture_output=True, text=True, check=True).stdout
    assert 700 == int(found)
