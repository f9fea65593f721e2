"""What is known of the time before the tree: which settings named which places, and what lies in them.

By the runtime's sources and documents (Symbiont 1.19.0: `crates/runtime/src/config.rs`, `context/types.rs`,
`crates/runtime/README.md`, `docs/logging.md`, `.env.example`).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """What a legacy place holds, which says where it goes and how."""

    CONTEXTS = "contexts"
    BACKUPS = "backups"
    VECTORS = "vectors"
    LOGS = "logs"


class Certainty(StrEnum):
    """How sure it is that a place holds legacy data."""

    SURE = "sure"
    """What is known to be the runtime's lies there."""
    LIKELY = "likely"
    """A setting or the user names it, and what lies there is not known."""
    UNSURE = "unsure"
    """It only has the name; it is not migrated unless the user says so."""


@dataclass(frozen=True, slots=True)
class Source:
    """A legacy place: an absolute path without links in it. `names`: only these files in it (patterns); empty: all."""

    path: str
    kind: Kind
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mention:
    """A setting or a variable that names a legacy place. `file` is where it stands; empty: in the environment."""

    file: str
    name: str
    value: str
    kind: Kind


SETTINGS_FILES = ("symbiont.toml", "symbi.toml", "symbi.quick.toml", "mcp-config.toml")
"""The runtime's own, in the working directory and in `~/.symbiont`."""

SETTINGS = MappingProxyType(
    {
        ("context", "storage_path"): Kind.CONTEXTS,
        ("context", "persistence", "storage_path"): Kind.CONTEXTS,
        ("context", "persistence_config", "storage_path"): Kind.CONTEXTS,
        ("context_manager", "persistence_config", "storage_path"): Kind.CONTEXTS,
        ("file_persistence", "storage_path"): Kind.CONTEXTS,
        ("persistence", "storage_path"): Kind.CONTEXTS,
        ("persistence_config", "storage_path"): Kind.CONTEXTS,
        ("symbiont", "context_storage_path"): Kind.CONTEXTS,
        ("storage", "context_path"): Kind.CONTEXTS,
        ("storage", "backup_path"): Kind.BACKUPS,
        ("vector_db", "data_path"): Kind.VECTORS,
        ("logging", "log_file_path"): Kind.LOGS,
    }
)
"""Settings of TOML files. Not every `storage_path` is one: the key store had one as well."""

VARIABLES = MappingProxyType(
    {
        "CONTEXT_STORAGE_PATH": Kind.CONTEXTS,
        "BACKUP_DIRECTORY": Kind.BACKUPS,
        "SYMBIONT_VECTOR_DATA_PATH": Kind.VECTORS,
    }
)
"""Variables of the environment and of `.env` files."""

PLACES = (
    ("data/contexts", Kind.CONTEXTS),
    ("agent_storage", Kind.CONTEXTS),
    ("backups", Kind.BACKUPS),
    ("data/vector_db", Kind.VECTORS),
    ("logs/model_io.encrypted.log", Kind.LOGS),
)
"""Where the defaults of those settings lead, relative to the runtime's working directory."""

USER_LOGS = ("logs", ("*.log", "*.log.*"))
"""Where the runtime's own tools log, relative to `~/.symbiont`."""

OLD_PERSISTENCE = ("enable_compression", "enable_encryption", "backup_count", "auto_save_interval")
NEW_PERSISTENCE = ("state_dir", "logs_dir", "prompts_dir", "vector_db_dir", "auto_create_dirs", "dir_permissions")
"""The settings of `FilePersistenceConfig` beside the place, before the tree and since."""

UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
"""How the runtime calls an agent. It loads no context of another name."""

_SECRET = re.compile(
    r"(?is)(?:.*/)?(?:"
    r"(?:\.ssh|\.gnupg|schemapin|agentpin_discovery|keys)/.*"
    r"|[^/]*\.(?:key|pem|p12|pfx|jks|keystore|kdbx|age-key)"
    r"|id_(?:rsa|dsa|ecdsa|ed25519)[^/]*"
    r"|(?:schemapin|agentpin)_keys\.json"
    r"|[^/]*credentials?(?:\.[^/]*)?"
    r"|[^/]*secrets?\.(?:json|toml|ya?ml|enc|txt|env)"
    r"|\.env(?:\.[^/]*)?|\.netrc|\.pgpass|token|[^/]*\.token|[^/]*master[_-]key[^/]*"
    r")"
)
_BEGINNINGS = re.compile(rb"\s*(?:(?:#[^\n]*\n\s*)*AGE-SECRET-KEY-1|-----BEGIN [A-Z0-9 ]*PRIVATE KEY)")


def is_secret_name(path: str) -> bool:
    """Whether a file is called as keys and credentials are. Those never move."""
    return _SECRET.fullmatch(path) is not None


def holds_key(head: bytes) -> bool:
    """Whether a file that begins so holds a private key."""
    return _BEGINNINGS.match(head) is not None
