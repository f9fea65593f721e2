"""What a backup begins with before anything else is imported: to look at the contexts takes as long as that.

Nothing depends on it. The backup looks at whatever is not known when it comes to it, and goes by its own settings.
"""

import os
import sys
from contextlib import suppress

from symbiont_datad.cli.words import Words
from symbiont_datad.errors import UnsafePath
from symbiont_datad.settings_places import Unsure, root_and_daemon_dir

_USUAL = "state/agents"
_HELP = {"-h", "--help"}


def begin(words: Words) -> None:
    """Have another process look at the contexts where they usually are, if there seem to be very many."""
    if words.command != "backup" or _HELP.intersection(words.rest):
        return
    from symbiont_datad.fsops.root import Tree, readable, resolve
    from symbiont_datad.restic.looking import look_ahead

    with suppress(Unsure, UnsafePath, OSError):
        root, _ = root_and_daemon_dir(words.config, words.whole_root, os.environ)
        with Tree(resolve(str(root))).directory(_USUAL) as pin, readable(".", pin) as fd:
            look_ahead(fd)


def end() -> None:
    """Give up what nobody has asked for."""
    if looking := sys.modules.get("symbiont_datad.restic.looking"):
        looking.forget_ahead()
