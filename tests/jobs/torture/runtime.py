"""A process that saves contexts at full speed, as the Symbiont runtime does (1.19.0, `save_context` in `manager.rs`).

`python runtime.py AGENTS MODE SEED`: the directory of contexts, `gzip` or `plain`. Before each save the old file is
copied to a backup; then it is truncated in place, written in pieces and synced. It ends when standard input does, with
all files whole.
"""

import os
import random
import select
import shutil
import sys
import time

from tests import contexts

NAMES = ("one", "two", "three", "four")


def main(folder: str, mode: str, seed: int) -> None:
    """Save one agent after another."""
    chance = random.Random(seed)
    number = 0
    while not select.select([0], [], [], 0)[0]:
        number += 1
        save(folder, mode, chance.choice(NAMES), number, chance)
    os.write(1, b"%d\n" % number)


def save(folder: str, mode: str, name: str, number: int, chance: random.Random) -> None:
    """One save."""
    value = contexts.context(name, time.time(), text="x" * chance.randrange(1, 40_000))
    value["metadata"]["number"] = str(number)
    data = contexts.plain(value) if mode == "plain" else contexts.zipped(value)
    agent = contexts.agent_id(name)
    path = os.path.join(folder, f"{agent}.json" if mode == "plain" else f"{agent}.json.gz")
    stem = f"{agent}.backup" if mode == "plain" else f"{agent}.json.backup"
    if os.path.exists(path):
        shutil.copyfile(path, os.path.join(folder, f"{stem}.{int(time.time())}.json"))
    with open(path, "wb", buffering=0) as file:
        if chance.random() < 0.1:
            time.sleep(0.05)  # between truncating and writing
        size = chance.choice([100, 4096, len(data)])
        for start in range(0, len(data), size):
            file.write(data[start : start + size])
            if chance.random() < 0.05:
                time.sleep(chance.random() * 0.1)
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
