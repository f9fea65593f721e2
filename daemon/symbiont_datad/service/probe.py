"""What a probe hears: whether the daemon lives, keeps its tree, and has started. Pure; `health` and the server ask it.

A failed backup makes no probe fail: it would take agents out of service, or start the daemon again, and mend nothing.
The answers name no path, because the server gives them to whoever asks.
"""

from enum import StrEnum

from symbiont_datad.live import LiveState
from symbiont_datad.quantities import format_duration

_LATE = 2
"""So many times the interval of the daemon's state it may be late: a machine that is busy, or wakes from sleep."""


class Probe(StrEnum):
    """What is asked, in the words of Kubernetes."""

    LIVE = "live"
    """The process and its parts move; when not, only a restart helps."""
    READY = "ready"
    """The tree is there and kept."""
    STARTUP = "startup"
    """The tree was there and kept at least once since the start."""


def trouble(probe: Probe, state: LiveState | None, keeper: int | None, now: float) -> str:
    """Why the daemon does not pass, on one line; empty when it does.

    `state` is what it left last, `keeper` the pid that holds its lock (None: nobody does), `now` the time on the
    clock of `LiveState.beat`.
    """
    if keeper is None:
        return "no daemon is running"
    if state is None or not state.running or state.beat > now:  # one of before the last boot, or of another daemon
        return "the daemon is starting"
    silent_s = now - state.beat
    if silent_s > _LATE * state.every_s:
        return f"the daemon has not moved for {format_duration(round(silent_s))}"
    if not state.alive:
        return next((text for text in state.warnings if text.endswith("doesn't move")), "a part of it doesn't move")
    if probe is Probe.STARTUP and not state.started:
        return "the tree is not ready yet"
    if probe is Probe.READY and not state.ready:
        return "the tree is not kept now; the log says why" if state.started else "the tree is not ready yet"
    return ""
