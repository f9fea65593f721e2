"""`key new` and `key show-recipient`: the key file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import DatadError
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.settings import Loaded

app = typer.Typer(name="key", help="The key file, which opens everything that is encrypted.", no_args_is_help=True)

Output = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Where to write it, instead of encryption.key_file.")
]
KeyFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A key file, instead of the key of the settings.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def new(ctx: typer.Context, output: Output = None, as_json: Json = False) -> None:
    """Make a key file, mode 0600. One that is there is never replaced. The secret is never printed."""
    from symbiont_datad.formats.age import new_identity, recipient_of
    from symbiont_datad.fsops.secret import write_new_secret

    loaded = invocation(ctx).load()
    configured = loaded.settings.encryption.key_file
    file = configured if output is None else Path(os.path.abspath(output))
    shown = printable(str(file))
    identity = new_identity()
    try:
        write_new_secret(file, f"{identity}\n".encode())
    except FileExistsError:
        raise DatadError(
            f"{shown}: is there already, and a key is never replaced, since nothing else opens what it has sealed; "
            "--output FILE makes one elsewhere"
        ) from None
    except OSError as error:
        raise DatadError(f"{shown}: can't be written: {error.strerror or error}") from None
    recipient = recipient_of(identity)
    missing: dict[str, object] = {} if loaded.settings.enable_encryption else {"enable_encryption": True}
    if file != configured:
        missing["encryption.key_file"] = shown
    if as_json:
        show.document({"path": shown, "recipient": recipient, "settings": missing})
        return
    show.line(f"wrote {shown}")
    show.line(f"recipient: {recipient}")
    show.line("Keep a copy of this file elsewhere: without it nothing can be opened again.")
    _advise(loaded, file, list(missing))


def _advise(loaded: "Loaded", file: Path, missing: list[str]) -> None:
    """What to set so that the key is used, as it would stand in datad.toml."""
    from symbiont_datad.settings_file import spelled
    from symbiont_datad.settings_sections import Encryption

    if loaded.settings.encryption.key is not None:
        origin = printable(loaded.origins["encryption.key"])
        show.line(f"encryption.key is set as well (from {origin}), and is used instead of a file.")
    if not missing:
        return
    show.line(f"To use it, set in {printable(str(loaded.file or '~/.symbiont/datad.toml'))}:")
    if "enable_encryption" in missing:
        show.line("  enable_encryption = true  # above the first [table]")
    if "encryption.key_file" in missing:
        show.line("  [encryption]")
        show.line(f"  key_file = {spelled(file, Encryption.model_fields['key_file'])}")


@app.command()
def show_recipient(ctx: typer.Context, file: KeyFile = None, as_json: Json = False) -> None:
    """Print the public half of the key, age1…: anybody may seal files to it, and only the key opens them."""
    from symbiont_datad.formats.age import recipient_of
    from symbiont_datad.jobs.secrets import age_identity, identity_in, secrets_of

    if file is None:
        identity = age_identity(secrets_of(invocation(ctx).load().settings))
    else:
        identity = identity_in(Path(os.path.abspath(file)), printable(str(file)))
    recipient = recipient_of(identity)
    if as_json:
        show.document({"recipient": recipient})
    else:
        show.line(recipient)
