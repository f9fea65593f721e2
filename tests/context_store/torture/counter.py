"""Processes that count together in one agent's context: `python counter.py ROOT PROCESSES TIMES`.

Each adds one to the count of all and one to the count under its own name, so often, and says its name and number then.
"""

import os
import sys
from pathlib import Path

from symbiont_datad import ContextStore, FilePersistenceConfig
from tests.context_store.torture.saver import AGENT


def main(root: str, processes: int, times: int) -> None:
    """Start them, each with a store of its own, and wait for them."""
    config = FilePersistenceConfig(root_data_dir=Path(root))
    children = []
    for process in range(processes):
        child = os.fork()
        if child == 0:
            count(ContextStore(config), f"p{process}", times)
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


def count(store: ContextStore, name: str, times: int) -> None:
    """Count."""
    for number in range(1, times + 1):
        with store.edit(AGENT, create=True) as context:
            counts = context["memory"]["working_memory"]["variables"]
            counts["all"] = counts.get("all", 0) + 1
            counts[name] = number
        os.write(1, f"{name} {number}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
