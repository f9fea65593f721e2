"""What the pages show is run: Python that a reader copies works as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/contexts.md")


def blocks(page: str) -> list[str]:
    """The Python on a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_on_a_page_runs(page: str, tmp_path: Path) -> None:
    """Each block by itself, with a home of its own, and with a warning as an error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_DATAD_")}
    found = blocks(page)
    assert found
    for block in found:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            env=environ | {"HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (0, "") == (done.returncode, done.stderr)
    (context,) = (tmp_path / ".symbiont/data/state/agents").glob("*.json.gz")
    assert context.stat().st_size > 0


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    """Each relative link names a file that is there."""
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / page).read_text())
    assert [] == [target for target in targets if not ((ROOT / page).parent / target).exists()]
