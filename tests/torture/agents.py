"""What agents do: each step is a function of the machine and of the chances that it takes."""

import json
from contextlib import suppress
from pathlib import Path
from random import Random

from symbiont_datad.formats.state_name import backup_name
from tests import contexts
from tests.jobs.log_writing import line
from tests.torture.machine import Machine, is_full
from tests.torture.model import AGENTS, HELD, LOGS


def _content(machine: Machine, name: str, chance: Random) -> bytes:
    return contexts.zipped(contexts.context(name, at=machine.clock.now(), text=f"{name} {chance.random()}"))


def _saved(machine: Machine, name: str, content: bytes) -> None:
    machine.model.saved[name] = content
    machine.model.broken.discard(name)


def save(machine: Machine, chance: Random) -> None:
    """A save that is whole or not at all."""
    name = chance.choice(AGENTS)
    content = _content(machine, name, chance)
    temporary = machine.root / "state/agents" / f".{contexts.agent_id(name)}.tmp"

    def write() -> None:
        temporary.write_bytes(content)
        temporary.replace(machine.context(name))

    if machine.write(write):
        _saved(machine, name, content)
    else:
        temporary.unlink(missing_ok=True)


def _back_up(machine: Machine, name: str) -> None:
    """As the runtime does before each save. Raises OSError when the disk is full: then it doesn't save."""
    if name in machine.model.saved and name not in machine.model.broken:
        backup = backup_name(contexts.agent_id(name), int(machine.clock.now()), gzip=True)
        (machine.root / "state/agents" / backup).write_bytes(machine.model.saved[name])


def save_in_place(machine: Machine, chance: Random) -> None:
    """The runtime's save: a backup first, then the file itself is written over. On a full disk that may be cut."""
    name = chance.choice(AGENTS)
    content = _content(machine, name, chance)
    begun = False

    def write() -> None:
        nonlocal begun
        _back_up(machine, name)
        begun = True
        machine.context(name).write_bytes(content)

    if machine.write(write):
        _saved(machine, name, content)
    elif begun:
        _cut(machine, name)


def _cut(machine: Machine, name: str) -> None:
    if name in machine.model.saved:
        machine.model.broken.add(name)
    else:  # nobody knows another state of it: its agent takes it away
        machine.context(name).unlink(missing_ok=True)


def crash_in_a_save(machine: Machine, chance: Random) -> None:
    """The same, but its process dies in the middle."""
    name = chance.choice(AGENTS)
    if name not in machine.model.saved or name in machine.model.broken:
        return
    content = _content(machine, name, chance)
    cut = chance.choice((0, 10, len(content) // 2, len(content) - 3))
    begun = False

    def write() -> None:
        nonlocal begun
        _back_up(machine, name)
        begun = True
        machine.context(name).write_bytes(content[:cut])

    if machine.write(write) or begun:
        machine.model.broken.add(name)


def delete_agent(machine: Machine, chance: Random) -> None:
    """An agent that is removed, with its backups, stays removed."""
    name = chance.choice(AGENTS)
    if name not in machine.model.saved:
        return
    machine.model.saved.pop(name)
    machine.model.broken.discard(name)
    files = (machine.root / "state/agents").glob(f"{contexts.agent_id(name)}*")
    for path in sorted(files, key=lambda one: len(one.name)):
        path.unlink(missing_ok=True)


def append(machine: Machine, chance: Random) -> None:
    """Some lines of a log, opened for each of them. What had no room is written before anything else is."""
    log = chance.choice(LOGS)
    for _ in range(chance.randint(1, 60)):
        if not append_one(machine, log, new=True):
            return


def append_one(machine: Machine, log: str, *, new: bool) -> bool:
    """Write the rest of a line that had no room, and then a new one if wanted; whether there was room for all."""
    model = machine.model
    if new and log not in model.torn:
        model.torn[log] = line(model.lines[log])
        model.lines[log] += 1

    def write() -> None:
        with open(machine.root / log, "ab", buffering=0) as file:
            while model.torn[log]:
                model.torn[log] = model.torn[log][file.write(model.torn[log]) or 0 :]

    if log in model.torn and machine.write(write) and not model.torn[log]:
        del model.torn[log]
    return log not in model.torn


def reopen_log(machine: Machine, chance: Random) -> None:
    """A writer that held its log open ends, and another one goes on."""
    if machine.disk is not None and machine.disk.full:
        return  # it waits for room, and doesn't end
    machine.release_log(chance.choice(HELD))
    machine.hold_logs()


def write_history(machine: Machine, chance: Random) -> None:
    """A prompt that was executed."""
    name = f"prompts/history/2026-11-{chance.randint(1, 28):02}/{len(machine.done)}.json"
    content = json.dumps({"n": chance.random()}).encode()
    path = machine.root / name

    def write() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    if machine.write(write) and path.exists():
        machine.model.history[name] = content
    else:
        path.unlink(missing_ok=True)


def write_cache(machine: Machine, chance: Random) -> None:
    """What can be made again."""
    for _ in range(chance.randint(1, 12)):
        name = f"prompts/cache/{chance.getrandbits(60):x}.json"

        def write(path: Path = machine.root / name) -> None:
            if path.parent.is_symlink():  # the daemon is about to put that right; an agent that follows it is no test
                raise FileNotFoundError
            try:
                path.write_text('{"a": 1}')
            except OSError as error:
                if is_full(error):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        path.unlink()
                raise

        if machine.write(write) and (machine.root / name).exists():
            machine.model.cached.add(name)
