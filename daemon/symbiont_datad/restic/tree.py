"""Trees: what a directory holds, encoded byte for byte as restic encodes it.

A tree is `{"nodes":[…]}` and a newline, its nodes in the order of their names' bytes. restic reads a tree, encodes it
again and compares (`rewrite`, `repair`), so the order of fields, what is left out, and how text is escaped all count.

Source: restic `doc/design.rst`, "Trees and Data"; `restic.Node` for the order of the fields; Go's `encoding/json` and
`strconv.Quote` for the escapes.
"""

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.records import UNREADABLE

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
"""A node's type by the format bits of its mode."""

_FORMAT_BITS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_SPECIAL_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


HEAD, TAIL = b'{"nodes":[', b"]}\n"
"""How a tree begins, and how it ends."""


class Attribute(msgspec.Struct, frozen=True):
    """An extended attribute."""

    name: str
    value: bytes


class Node(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One entry of a directory. `name` is quoted (see `quote`), `mode` is Go's (see `go_mode`), times are RFC 3339.

    `content` are the ids of a file's chunks in order; None for what is no file.
    """

    name: str
    type: str
    mode: int = 0
    mtime: str
    atime: str
    ctime: str
    uid: int
    gid: int
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes = b""
    extended_attributes: list[Attribute] = []
    generic_attributes: dict[str, Any] = {}
    device: int = 0
    content: list[str] | None
    subtree: str = ""
    error: str = ""

    @property
    def raw_name(self) -> bytes:
        """The name as the file system has it. Raises Damaged."""
        return unquote(self.name)


class _Tree(msgspec.Struct):
    nodes: list[Node]


class _NamedNode(msgspec.Struct, gc=False):
    name: str
    type: str


class _NamedTree(msgspec.Struct):
    nodes: list[_NamedNode]


class _RawTree(msgspec.Struct):
    nodes: list[msgspec.Raw]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Tree)
_NAME_DECODER = msgspec.json.Decoder(_NamedTree)
_RAW_DECODER = msgspec.json.Decoder(_RawTree)

_PLAIN_NAME = re.compile(rb"[ !#-\[\]-~]*")
_UNICODE_15 = re.compile(
    "[\u0cf3\u0ece\U00010efd-\U00010eff\U0001123f-\U00011241\U00011b00-\U00011b09\U00011f00-\U00011f10"
    "\U00011f12-\U00011f3a\U00011f3e-\U00011f59\U0001342f\U00013440-\U00013455\U0001b132\U0001b155"
    "\U0001d2c0-\U0001d2d3\U0001df25-\U0001df2a\U0001e030-\U0001e06d\U0001e08f\U0001e4d0-\U0001e4f9\U0001f6dc"
    "\U0001f774-\U0001f776\U0001f77b-\U0001f77f\U0001f7d9\U0001fa75-\U0001fa77\U0001fa87-\U0001fa88"
    "\U0001faad-\U0001faaf\U0001fabb-\U0001fabd\U0001fabf\U0001face-\U0001facf\U0001fada-\U0001fadb\U0001fae8"
    "\U0001faf7-\U0001faf8\U0002b739\U00031350-\U000323af]"
)
"""What Unicode 15.0 added that can be printed: Go goes by 15.0 since its 1.21, Python 3.11 by 14.0."""

_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 92: "\\\\", 34: '\\"'}


def quote(name: bytes) -> str:
    """A name as Go's `strconv.Quote` writes it, without the quotes around it: printable text, escapes for the rest."""
    if _PLAIN_NAME.fullmatch(name):
        return name.decode("ascii")
    quoted = []
    for character in name.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if code in _ESCAPES:
            quoted.append(_ESCAPES[code])
        elif character.isprintable() or _UNICODE_15.match(character):
            quoted.append(character)
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
            quoted.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F:
            quoted.append(f"\\x{code:02x}")
        else:
            quoted.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(quoted)


_UNQUOTE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))", re.DOTALL)
_UNESCAPES = {escape[1]: bytes([code]) for code, escape in _ESCAPES.items()}


def unquote(name: str) -> bytes:
    """The name that `quote` wrote. Raises Damaged for text that is no quoted name."""
    if "\\" not in name:
        return name.encode("utf-8", "surrogateescape")
    found, at = [], 0
    for match in _UNQUOTE.finditer(name):
        found.append(name[at : match.start()].encode("utf-8", "surrogateescape"))
        byte, short, long, octal, letter = match.groups()
        try:
            if byte or octal:
                found.append(bytes([int(byte, 16) if byte else int(octal, 8)]))
            elif short or long:
                found.append(chr(int(short or long, 16)).encode())
            else:
                found.append(_UNESCAPES[letter])
        except (KeyError, ValueError, OverflowError):  # no such escape, or no such character
            raise Damaged(f"a tree has the name {name!r}, which can't be read") from None
        at = match.end()
    found.append(name[at:].encode("utf-8", "surrogateescape"))
    return b"".join(found)


def go_mode(mode: int) -> int:
    """A mode as stat(2) has it, as Go's `FileMode`."""
    found = mode & 0o777 | _FORMAT_BITS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _SPECIAL_BITS:
        if mode & bit:
            found |= go_bit
    return found


def permissions(mode: int) -> int:
    """The permission bits (with set-user-ID, set-group-ID and sticky) of a Go `FileMode`."""
    found = mode & 0o777
    for bit, go_bit in _SPECIAL_BITS:
        if mode & go_bit:
            found |= bit
    return found


def is_safe_name(name: bytes) -> bool:
    """Whether a name can be one entry of a directory: a tree that says `../x` is an attack, not a name."""
    return bool(name) and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def encode_node(node: Node) -> bytes:
    """One node, as it stands in a tree."""
    text = _ENCODER.encode(node)
    if node.linktarget_raw:
        text = text.replace(
            b'"linktarget":' + _ENCODER.encode(node.linktarget), b'"linktarget":' + _text(node.linktarget_raw), 1
        )
    if b"<" in text or b">" in text or b"&" in text or b"\xe2\x80" in text:
        # Go escapes these everywhere in a string, and outside of strings they don't occur.
        text = (
            text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
            .replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        )  # fmt: skip
    return text


_NO_TEXT = re.compile("[\udc80-\udcff]")


def _text(raw: bytes) -> bytes:
    """Bytes as Go's JSON has them in a string: each one that is no UTF-8 becomes the escape of U+FFFD."""
    parts = _NO_TEXT.split(raw.decode("utf-8", "surrogateescape"))
    return b'"' + b"\\ufffd".join(_ENCODER.encode(part)[1:-1] for part in parts) + b'"'


def encode_tree(nodes: Iterable[bytes | memoryview | msgspec.Raw]) -> bytes:
    """A tree of encoded nodes (or of several, with commas between them), which come in the order of their raw names."""
    pieces: list[bytes | memoryview | msgspec.Raw] = []
    for node in nodes:
        pieces += (node, b",")
    return b"".join((HEAD, *pieces[:-1], TAIL))  # in one go: a tree may have many megabytes


def decode_tree(text: bytes) -> list[Node]:
    """The nodes of a tree. Raises Damaged."""
    try:
        return _DECODER.decode(text).nodes
    except UNREADABLE as error:
        raise Damaged(f"a tree can't be read ({error})") from None


def split_tree(text: bytes) -> Sequence[msgspec.Raw]:
    """The nodes of a tree as they are encoded. Raises Damaged."""
    try:
        return _RAW_DECODER.decode(text).nodes
    except UNREADABLE as error:
        raise Damaged(f"a tree can't be read ({error})") from None


def name_nodes(text: bytes) -> Iterator[tuple[str, str, msgspec.Raw]]:
    """The quoted name and the type of each node of a tree, with the node as it is encoded. Raises Damaged."""
    try:
        named = _NAME_DECODER.decode(text).nodes
    except UNREADABLE as error:
        raise Damaged(f"a tree can't be read ({error})") from None
    for node, raw in zip(named, split_tree(text), strict=True):
        yield node.name, node.type, raw
