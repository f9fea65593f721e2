"""The memory of a sweep that left nothing to do: as long as nothing changes, the next ones are over with the walk."""

import json
import os
from hashlib import blake2b

from symbiont_datad.events import emit
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.saving import Fingerprint
from symbiont_datad.ledger import LedgerError

_MARK = "//sweep/quiet"


class Quiet:
    """What this sweep has listed, against what the last quiet one had."""

    def __init__(self, context: JobContext, seen: Fingerprint) -> None:
        """`seen` has everything below `state/` so far, and nothing else."""
        self._context = context
        self._hot = seen.hot
        settings = context.settings
        secrets = settings.repository.secrets
        opens = secrets.key is not None or os.path.exists(secrets.key_file)  # what is sealed: that is judged by its key
        facts = (context.layout.root, settings.backup_count, settings.settle_s, settings.state, opens)
        self._state = f"{seen.digest()}{blake2b(repr(facts).encode(), digest_size=8).hexdigest()}"

    def counts(self) -> dict[str, int] | None:
        """The counts to report, if all is as it was after a sweep that left nothing to do."""
        try:
            state, _, text = self._context.ledger.mark(_MARK).partition(" ")
            if state != self._state:
                return None
            due, counts = json.loads(text)
            if self._context.now >= due or self._context.stopping():
                return None
            return {**counts, "checked": 0}
        except (LedgerError, ValueError, TypeError, RecursionError):
            return None

    def leave(self, counts: dict[str, int], due: float) -> None:
        """Remember that this sweep has left nothing to do before `due` (seconds since the epoch).

        Not if a file has changed so lately that it may change again unseen.
        """
        if self._context.dry_run or self._hot:
            return
        try:
            self._context.ledger.update_marks({_MARK: f"{self._state} {json.dumps([due, counts])}"}, ())
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))
