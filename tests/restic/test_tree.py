"""Trees: byte for byte what restic writes, whatever the names are; and nothing that makes no sense is read."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import (
    Attribute,
    Node,
    decode_tree,
    encode_node,
    encode_tree,
    go_mode,
    is_safe_name,
    name_nodes,
    permissions,
    quote,
    split_tree,
    unquote,
)
from tests.restic.making import PASSWORD, make_repository, reopen, snapshot

NOW = "2026-11-23T08:03:40.33577289Z"

# Trees that restic 0.18.0 wrote: a directory, and a file in one.
RESTIC_TREES = {
    "9e864deff48b516a93429e0f8a21a88c99a78d24e10b6a2023725ac712c9cd5c": (
        b'{"nodes":[{"name":"src","type":"dir","mode":2147484141,"mtime":"2026-11-23T08:03:40.33577289Z",'
        b'"atime":"2026-11-23T08:03:40.33577289Z","ctime":"2026-11-23T08:03:40.33577289Z","uid":0,"gid":0,"user":"root",'
        b'"group":"root","inode":2195483,"device_id":65024,"content":null,'
        b'"subtree":"8044ca2d89ca273cd3b80f2f0747d5acafbdfb28c3d2589d75fcad904864f13a"}]}\n'
    ),
    "8044ca2d89ca273cd3b80f2f0747d5acafbdfb28c3d2589d75fcad904864f13a": (
        b'{"nodes":[{"name":"a","type":"file","mode":420,"mtime":"2026-11-23T08:03:40.33577289Z",'
        b'"atime":"2026-11-23T08:03:40.33577289Z","ctime":"2026-11-23T08:03:40.33577289Z","uid":0,"gid":0,"user":"root",'
        b'"group":"root","inode":2195525,"device_id":65024,"size":18,"links":1,'
        b'"content":["3d134288804febc4192fa79ea474511b44d76266c08e328d241f2806aa4587d4"]}]}\n'
    ),
}

names = st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


class TestQuote:
    """Names are written as Go writes them, and read back as they were."""

    @given(names)
    def test_round_trip(self, name: bytes) -> None:
        """Any bytes at all come back; what is written is valid text, and so is the JSON."""
        quoted = quote(name)
        assert name == unquote(quoted)
        (node,) = decode_tree(encode_tree([encode_node(example(name=quoted))]))
        assert name == node.raw_name
        assert json.loads(encode_node(node)) == msgspec.json.decode(encode_node(node))

    def test_every_byte(self) -> None:
        """Each single byte, and each behind a byte that begins a character of several."""
        for byte in range(256):
            for name in (bytes([byte]), b"\xe2" + bytes([byte]), b"\xe2\x80" + bytes([byte])):
                assert name == unquote(quote(name))

    @pytest.mark.parametrize(
        ("name", "quoted"),
        [
            (b"plain name.json", "plain name.json"),
            (b'"\\', '\\"\\\\'),
            (b"\a\b\f\n\r\t\v", "\\a\\b\\f\\n\\r\\t\\v"),
            (b"\x00\x1f\x7f", "\\x00\\x1f\\x7f"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("ü€😀".encode(), "ü€😀"),
            ("\x80\xa0\xad".encode(), "\\u0080\\u00a0\\u00ad"),
            ("\u2028\u2029\u200b\ufeff".encode(), "\\u2028\\u2029\\u200b\\ufeff"),
            ("\ufffd".encode(), "\ufffd"),
            ("\U000e0001\U0010ffff".encode(), "\\U000e0001\\U0010ffff"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ],
    )
    def test_as_go(self, name: bytes, quoted: str) -> None:
        """What Go's `strconv.Quote` makes of these names."""
        assert quoted == quote(name)

    @pytest.mark.parametrize(
        "quoted", ["\\", "a\\", "\\q", "\\x1", "\\u12", "\\ud800", "\\U00110000", "\\Uffffffff", "\\777", "\\'", "\\é"]
    )
    def test_refused(self, quoted: str) -> None:
        """What Go would not read either is refused."""
        with pytest.raises(Damaged):
            unquote(quoted)

    def test_octal(self) -> None:
        """Go reads octal escapes, though it writes none."""
        assert b"A\xff" == unquote("\\101\\377")

    @pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b"])
    def test_unsafe(self, name: bytes) -> None:
        """What can't be one entry of a directory."""
        assert not is_safe_name(name)

    @pytest.mark.parametrize("name", [b"...", b" ", b"\n", b"-rf", b"\xff", b"a\\b"])
    def test_safe(self, name: bytes) -> None:
        """What can, however odd it looks."""
        assert is_safe_name(name)


def example(**fields: object) -> Node:
    """A small node with these fields."""
    return msgspec.structs.replace(
        Node(name="a", type="file", mtime=NOW, atime=NOW, ctime=NOW, uid=0, gid=0, content=None), **fields
    )


class TestEncode:
    """A tree is written to the byte as restic writes it."""

    @pytest.mark.parametrize("tree", RESTIC_TREES)
    def test_restic_s_own(self, tree: str) -> None:
        """restic's trees, decoded and encoded again, keep their ids."""
        text = RESTIC_TREES[tree]
        assert text == encode_tree([encode_node(node) for node in decode_tree(text)]) == encode_tree(split_tree(text))
        assert tree == sha256(text).hexdigest()

    def test_empty(self) -> None:
        """An empty directory."""
        assert b'{"nodes":[]}\n' == encode_tree([])

    def test_order_of_fields(self) -> None:
        """All fields, in the order that restic has them."""
        text = encode_node(
            example(
                mode=1, user="u", group="g", inode=2, device_id=3, size=4, links=5, linktarget="t",
                extended_attributes=[Attribute("user.x", b"\xff")], generic_attributes={"k": 1}, device=6, content=[],
                subtree="s", error="e",
            )
        )  # fmt: skip
        order = "name type mode mtime atime ctime uid gid user group inode device_id size links linktarget "
        order += "extended_attributes generic_attributes device content subtree error"
        assert order == " ".join(json.loads(text))
        assert b'"extended_attributes":[{"name":"user.x","value":"/w=="}]' in text

    def test_go_escapes(self) -> None:
        """Go's JSON escapes these everywhere in a string."""
        text = encode_node(example(name="<&>", user="\u2028\u2029", content=[]))
        assert b'"name":"\\u003c\\u0026\\u003e"' in text
        assert b'"user":"\\u2028\\u2029"' in text

    def test_empty_file_and_no_file(self) -> None:
        """An empty file has an empty list of chunks, what is no file has null."""
        assert b'"content":[]}' == encode_node(example(content=[]))[-13:]
        assert b'"content":null}' == encode_node(example(content=None))[-15:]

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"{}", b"[]", b'{"nodes":null}', b'{"nodes":[{}]}', b'{"nodes":[{"name":7}]}', b"\xff",
            b'{"\xff":7}', b'{"nodes":[{"name":"\xff"}]}', b'{"nodes":[],"more":' + b"[" * 5000,
            b'{"nodes":[{"name":"\\ud800","type":"dir","mtime":"","atime":"","ctime":"","uid":0,"gid":0,"content":null}]}',
        ],
    )  # fmt: skip
    def test_no_tree(self, text: bytes) -> None:
        """What is no tree is refused."""
        with pytest.raises(Damaged):
            decode_tree(text)
        with pytest.raises(Damaged):
            list(name_nodes(text))


class TestMode:
    """Modes as stat(2) has them, and as Go has them."""

    @pytest.mark.parametrize(
        ("mode", "go"),
        [
            (stat.S_IFREG | 0o644, 0o644),
            (stat.S_IFDIR | 0o755, 1 << 31 | 0o755),
            (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
            (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
            (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
            (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
            (stat.S_IFCHR | 0o660, 1 << 26 | 1 << 21 | 0o660),
            (stat.S_IFREG | 0o6755, 1 << 23 | 1 << 22 | 0o755),
            (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        ],
    )
    def test_go_mode(self, mode: int, go: int) -> None:
        """Each type and each special bit; and the permissions come back."""
        assert go == go_mode(mode)
        assert stat.S_IMODE(mode) == permissions(go)


def nasty_names() -> list[bytes]:
    """Names that every part of a tool trips over."""
    singles = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    texts = [
        "\u2028", "\u2029", "<>&", "'\"`", "\\", "\\n", "a\\x41", "😀", "\U0001f469\u200d\U0001f467", "\u05e9\u05dc",
        "\u202eabc", "e\u0301", "é", "\u00a0", "\ufeff", "\ufffd", "\ufffe", "\U000e0001", "\U0010ffff", "\ue000",
        "\u0378", "\u0cf3", "...", " ", "-n", "%s", "*", "a\tb", "{}", "\u00ad", "\u200d", "\u3000", "\u1680",
    ]  # fmt: skip
    broken = [b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"ok\x80ok"]
    return [*singles, *(text.encode() for text in texts), *broken, b"x" * 255, b"\xff" * 255, "ü".encode() * 127]


def nasty_directory(root: Path) -> Path:
    """A directory with all of them, in files and directories, and with every kind of entry that can be made."""
    root.mkdir()
    base = os.fsencode(root)
    for name in nasty_names():
        with open(os.path.join(base, name), "wb") as file:
            file.write(b"content of " + name)
    for number, name in enumerate(nasty_names()[::9]):
        inner = os.path.join(base, b"dirs", name)
        os.makedirs(inner)
        if number % 2:
            os.symlink(name, os.path.join(inner, b"link"))
    (root / "empty").touch()
    os.link(root / "empty", root / "hard link")
    os.mkfifo(root / "fifo", 0o640)
    (root / "setuid").touch()
    (root / "setuid").chmod(0o4711)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    os.utime(root / "empty", ns=(1_000_000_000, 1_600_000_000_120_000_000))
    if sys.platform == "linux":
        with socket.socket(socket.AF_UNIX) as listener:
            old = os.getcwd()
            os.chdir(root)  # a socket's path is short
            try:
                listener.bind("socket")
            finally:
                os.chdir(old)
        os.setxattr(root / "setuid", "user.nasty<&>", b"\x00\xff value")
        os.setxattr(root / "sticky", "user.second", b"")
        os.setxattr(root / "sticky", "user.first", b"1")
    return root


def restics() -> Mapping[str, str]:
    """The restics that there are, by a name."""
    found = {"installed": shutil.which("restic"), "newer": os.environ.get("DATAD_RESTIC")}
    return {name: path for name, path in found.items() if path}


def restic(program: str, repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run restic on a repository."""
    return subprocess.run(
        [program, "--no-cache", "-r", str(repository), *arguments],
        env={"RESTIC_PASSWORD": PASSWORD, "PATH": os.environ["PATH"], "HOME": str(repository)},
        capture_output=True,
        timeout=60,
    )


def nodes_below(repository: Repository, tree: str, parts: Sequence[str]) -> dict[bytes, Node]:
    """The nodes of all that is below a directory of a snapshot, by their paths from there; `parts` lead to it.

    Each tree that is met must come out the same when it is decoded and encoded again. (Not where restic before 0.17 has
    lost bytes of a link's target: that it did is seen in the escape only.)
    """
    text = repository.load_blob(bytes.fromhex(tree))
    nodes = decode_tree(text)
    if b'"linktarget_raw"' in text or b"\\ufffd" not in text:
        assert text == encode_tree([encode_node(node) for node in nodes])
    if parts:
        below = {node.name: node.subtree for node in nodes}[parts[0]]
        return nodes_below(repository, below, parts[1:])
    found = {}
    for node in nodes:
        found[node.raw_name] = node
        if node.subtree:
            below_it = nodes_below(repository, node.subtree, [])
            found |= {node.raw_name + b"/" + path: inner for path, inner in below_it.items()}
    return found


def comparable(node: Node) -> Node:
    """A node without what two programs may rightly write in another way.

    The device's number changes with a reboot; restic writes it for everything, we where a file has several names. An
    attribute's place in the list means nothing; restic has them as the kernel tells them, we have them by name. Before
    0.17 restic did not know `linktarget_raw`, and each restic takes those characters for printable that its Go knows.
    A directory's tree has another id when anything below it is written in another way.
    """
    return msgspec.structs.replace(
        node,
        name="",
        subtree="",
        device_id=0,
        linktarget_raw=b"",
        extended_attributes=sorted(node.extended_attributes, key=lambda attribute: attribute.name),
    )


@pytest.mark.slow
@pytest.mark.parametrize("which", ["installed", "newer"])
def test_beside_restic(tmp_path: Path, which: str) -> None:
    """restic reads our trees of every nasty name, and its own backup of that directory says the same of every entry."""
    program = restics().get(which)
    if program is None:
        pytest.skip("restic is not installed")
    source = nasty_directory(tmp_path / "source")
    ours = snapshot(make_repository(tmp_path / "repository"), source)

    listed = restic(program, tmp_path / "repository", "ls", "--json", ours)
    assert 0 == listed.returncode, listed.stderr
    assert len(nasty_names()) < listed.stdout.count(b"\n")
    dumped = restic(program, tmp_path / "repository", "dump", ours, f"{source.resolve()}/{'ü' * 127}")
    assert ("content of " + "ü" * 127).encode() == dumped.stdout

    if b"rewrite" in restic(program, tmp_path / "repository", "help").stdout:
        rewritten = restic(program, tmp_path / "repository", "rewrite", "--exclude", "nothing that is there", ours)
        assert 0 == rewritten.returncode, rewritten.stderr

    made = restic(program, tmp_path / "repository", "backup", "--json", "--parent", ours, str(source))
    assert 0 == made.returncode, made.stderr
    summary = json.loads(made.stdout.splitlines()[-1])
    assert (0, 0) == (summary["files_new"], summary["files_changed"])
    made = restic(program, tmp_path / "repository", "backup", "--json", "--force", str(source))
    assert 0 == made.returncode, made.stderr
    assert 0 == json.loads(made.stdout.splitlines()[-1])["data_blobs"]

    repository = reopen(tmp_path / "repository")
    repository.load_index()
    parts = source.resolve().parts[1:]
    expected = nodes_below(repository, repository.snapshot(ours).tree, parts)
    assert len(nasty_names()) < len(expected)
    for name, found in repository.snapshots():
        if name != ours:
            theirs = nodes_below(repository, found.tree, parts)
            assert {path: comparable(node) for path, node in expected.items() if node.type != "socket"} == {
                path: comparable(node) for path, node in theirs.items() if node.type != "socket"
            }

    checked = restic(program, tmp_path / "repository", "check", "--read-data")
    assert 0 == checked.returncode, checked.stderr
