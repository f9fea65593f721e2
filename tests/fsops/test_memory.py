"""Large blocks go back to the system when they are freed."""

import gc
import subprocess
import sys
from contextlib import suppress

from symbiont_datad.fsops.memory import collector_at_rest

_CODE = """
import sys
from symbiont_datad.fsops.memory import give_back_large_blocks
if sys.argv[1:] == ["give back"]:
    give_back_large_blocks()
for _ in range(3):
    blocks = [bytes(8 << 20) for _ in range(8)]
    keeps_the_heap_from_shrinking = [bytes(2000) for _ in range(1000)]
    del blocks
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096)
"""


def resident(*arguments: str) -> int:
    """What a process holds after it has freed 64 MiB in blocks of 8, three times."""
    done = subprocess.run([sys.executable, "-c", _CODE, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_blocks_are_given_back() -> None:
    """Freed blocks don't stay with the process; without the call at least some of them do, or it is not needed."""
    assert resident("give back") < 40 << 20
    assert resident("give back") <= resident() + (1 << 20)


def test_the_collector_rests_while_the_block_runs() -> None:
    """Also when the block fails; where it was at rest before, it stays so."""
    assert gc.isenabled()
    with collector_at_rest():
        with suppress(KeyError), collector_at_rest():
            raise KeyError
        assert not gc.isenabled()
    assert gc.isenabled()
