"""What people type. Each module holds one group of commands: parse, call, print, exit code."""

import gc
import os
import sys

from symbiont_datad.cli import ahead, health
from symbiont_datad.cli.words import words_of
from symbiont_datad.errors import DatadError, ExitCode


def main() -> None:
    """The command `symbiont-datad`. A failure that we know of is one line on stderr and its exit code."""
    words = words_of(sys.argv[1:])
    question = health.asked(words)
    if question is not None:
        sys.exit(int(health.answer(question)))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for any takes 8 ms
    gc.disable()  # until the settings are loaded: what is imported lives, and looking at it for garbage takes a while
    ahead.begin(words)
    from symbiont_datad.cli.app import app
    from symbiont_datad.ledger import LedgerError

    try:
        app()
    except DatadError as error:
        _complain(str(error), error.exit_code)
    except LedgerError as error:
        _complain(str(error), ExitCode.FAILED)
    except PermissionError as error:
        _complain(f"{error.filename or 'the tree'}: not permitted ({error.strerror})", ExitCode.FAILED)
    except OSError as error:
        _complain(str(error), ExitCode.FAILED)
    finally:
        ahead.end()
        gc.freeze()  # or the interpreter, before it ends, would look at all of it once more
        gc.enable()


def _complain(text: str, code: ExitCode) -> None:
    sys.stderr.write("".join(f"symbiont-datad: {line}\n" for line in text.splitlines() or [""]))
    sys.exit(int(code))
