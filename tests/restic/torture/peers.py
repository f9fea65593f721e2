"""restic, which has the last word on whether a repository is whole."""

import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest


def resticses() -> list[str]:
    """Every restic that there is: the one of the system, and the newer one of DATAD_RESTIC."""
    found = [path for path in (os.environ.get("DATAD_RESTIC"), shutil.which("restic")) if path]
    if not found:
        pytest.skip("restic is not installed")
    return found


def restic(program: str, place: str, password: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """What restic prints; fails the test when it finds fault. Locks of the dead are not its concern: it takes none."""
    done = subprocess.run(
        [program, "--repo", place, "--no-cache", "--no-lock", *arguments],
        env={**os.environ, **(environ or {}), "RESTIC_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def check_with_restic(place: str, password: str, environ: Mapping[str, str] | None = None) -> None:
    """Fail unless restic reads all of the repository and finds no error."""
    said = restic(resticses()[0], place, password, "check", "--read-data", environ=environ)
    assert "no errors were found" in said
