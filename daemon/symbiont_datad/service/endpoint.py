"""What the settings say of HTTP, put into effect: a server where one is asked for, and none where it is not.

An address that is taken, or not there yet, is tried again at each turn: the tree is kept all the same.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from symbiont_datad.errors import DatadError, SettingsError
from symbiont_datad.events import emit
from symbiont_datad.fsops.secret import GROUP_MAY_READ, read_secret
from symbiont_datad.report import printable
from symbiont_datad.service.request import Access, Routes
from symbiont_datad.settings_sections import is_loopback, split_listen

if TYPE_CHECKING:
    from symbiont_datad.service.http import Server
    from symbiont_datad.settings import Settings

_SHORTEST = 16
_LARGEST_FILE = 4096
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen, and the token that callers must have; its text hides that."""

    address: str
    token: str | None = field(default=None, repr=False)


def listening(settings: "Settings") -> Listening | None:
    """What the settings ask for; None where they don't. Raises SettingsError for a token that will not do."""
    http = settings.http
    if http.listen is None:
        return None
    if http.token is not None:
        return Listening(http.listen, _checked(http.token.get_secret_value(), "http.token"))
    if http.token_file is None:
        if not is_loopback(http.listen):  # the settings refuse it too; what listens must not depend on that
            raise SettingsError(f"http.listen = {http.listen}: needs http.token_file")
        return Listening(http.listen)
    name = f'http.token_file = "{printable(str(http.token_file))}"'
    try:
        content = read_secret(http.token_file, GROUP_MAY_READ, _LARGEST_FILE).decode("utf-8")
    except FileNotFoundError:
        raise SettingsError(f"{name}: there is no such file") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: must be text") from None
    except OSError as error:
        raise SettingsError(f"{name}: can't be read: {error.strerror or error}") from None
    except DatadError as error:
        raise SettingsError(f"{name}: {error}") from None
    return Listening(http.listen, _checked(content, name))


def _checked(text: str, name: str) -> str:
    token = text.strip()
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"{name}: must be at least {_SHORTEST} visible ASCII characters, as `openssl rand -hex 32`")
    return token


class Endpoint:
    """The server, as long as there is one. `problem` says in words why there is none although one is asked for."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._now: Listening | None = None
        self._server: Server | None = None
        self.problem = ""

    def follow(self, wanted: Listening | None) -> None:
        """Have a server as `wanted`; what is so already is left alone."""
        if wanted == self._now and (wanted is None or (self._server is not None and self._server.alive())):
            return
        self.close()
        self._now = wanted
        if wanted is None:
            self.problem = ""
            return
        from symbiont_datad.service.http import Server  # only where one is asked for: memory

        host, port = split_listen(wanted.address)
        access = Access(wanted.token, _LOOPBACK_NAMES | {host.lower()})
        try:
            self._server = Server(host, port, self._routes, access)
        except (OSError, RuntimeError) as error:
            found = f"can't listen on {wanted.address}: {getattr(error, 'strerror', None) or error}"
            if found != self.problem:
                emit("http_failed", reason=found)
            self.problem = found
        else:
            self.problem = ""
            emit("http_started", address=wanted.address)

    def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
            self._server = None
