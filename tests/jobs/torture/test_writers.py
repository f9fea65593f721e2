"""While the runtime saves at full speed, sweeps never heal what is merely being written."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symbiont_datad.formats.context import judge
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.ledger import Ledger
from tests import contexts
from tests.jobs.making import run, settings_for
from tests.jobs.torture import runtime

ROOT = Path(__file__).parents[3]
LENGTH_S = float(os.environ.get("DATAD_WRITERS_S", "6"))
"""How long each of the slow tests writes. DATAD_WRITERS_S=60 is a minute."""


def sweeps_while_writing(settings: JobSettings, mode: str, length_s: float, pause_s: float) -> int:
    """Let a runtime save for so long and sweep meanwhile; hand back how many files were seen half written."""
    agents = Path(settings.layout.root, "state/agents")
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}{os.pathsep}{ROOT}"}
    command = [sys.executable, runtime.__file__, str(agents), mode, str(random.randrange(1 << 32))]
    unsettled = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        until = time.monotonic() + length_s
        while time.monotonic() < until:
            ran = run("sweep", settings, now=time.time())
            unsettled += ran.report.counts["unsettled"]
            assert [] == [one for one in ran.report.actions if one.kind.startswith("context_")]
            assert [] == [one for one in ran.told if one.startswith("context_")]
            time.sleep(pause_s)
        saves = int(process.communicate()[0])
    assert (0, True) == (process.returncode, saves > 0)
    assert not Path(settings.layout.root, ".quarantine").exists()
    for name in runtime.NAMES:
        extension = "json" if mode == "plain" else "json.gz"
        path = agents / f"{contexts.agent_id(name)}.{extension}"
        assert not path.exists() or judge(path.read_bytes(), gzip=mode != "plain").kind is None
    with Ledger(settings.ledger_path) as ledger:
        assert [] == ledger.actions(kinds=["context_restored", "context_quarantined", "context_converted"])
    return unsettled


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["gzip", "plain"])
def test_what_is_being_written_is_never_healed(tmp_path: Path, mode: str) -> None:
    """A sweep every second, with the time to settle that users have."""
    assert sweeps_while_writing(settings_for(tmp_path), mode, LENGTH_S, 1.0) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["gzip", "plain"])
def test_nor_without_any_time_to_settle(tmp_path: Path, mode: str) -> None:
    """Sweeps without a pause, and every file counts as settled at once: that somebody writes it keeps it from harm."""
    assert sweeps_while_writing(settings_for(tmp_path, settle_s=0.0), mode, LENGTH_S, 0.0) > 0
