"""A process whose children save one agent, each until it is killed: `python saver.py ROOT MODE KEY`.

At each line on standard input a child begins: first its pid is told, then the number of each save when it is done, last
`gone`. So a child starts in a millisecond, with everything imported.
"""

import os
import sys
from pathlib import Path

from symbiont_datad import ContextStore, FilePersistenceConfig
from symbiont_datad.formats import age  # noqa: F401  # children have it then

AGENT = "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11"


def main(root: str, mode: str, key: str) -> None:
    """Serve lines until standard input ends."""
    config = FilePersistenceConfig(
        root_data_dir=Path(root), enable_compression=mode != "plain", enable_encryption=mode == "sealed"
    )
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            os.write(1, b"%d\n" % os.getpid())
            save(ContextStore(config, key=Path(key)))
        os.waitpid(child, 0)
        os.write(1, b"gone\n")


def save(store: ContextStore) -> None:
    """Count in a context, for ever; its size changes with each save."""
    while True:
        with store.edit(AGENT, create=True) as context:
            number = int(context["metadata"].get("count", "0")) + 1
            context["metadata"] = {"count": str(number), "filling": "x" * (number * 997 % 60_000)}
        os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    main(*sys.argv[1:])
