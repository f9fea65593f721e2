"""A packed directory holds everything as it was, opens with stock tools, and is never half of one unseen."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from symbiont_datad.formats.age import new_identity, recipient_of
from symbiont_datad.formats.packed import Member, members, packing

KEY = new_identity()
SEALS = pytest.mark.parametrize(("recipient", "identity"), [("", ""), (recipient_of(KEY), KEY)], ids=["open", "sealed"])


def packed(wanted: list[Member], content: bytes, recipient: str = "") -> tuple[bytes, list[Member]]:
    """What `wanted` becomes, each file with the same content, and the members as they were handed back."""
    out, done = io.BytesIO(), []
    with packing(out, recipient) as packer:
        for member in wanted:
            if member.kind == "file":
                fd = os.memfd_create("content") if hasattr(os, "memfd_create") else os.open("/dev/null", os.O_RDONLY)
                os.write(fd, content)
                os.lseek(fd, 0, os.SEEK_SET)
                done.append(packer.add_file(member, fd))
                os.close(fd)
            else:
                packer.add(member)
                done.append(member)
    return out.getvalue(), done


DAY = [
    Member("day", "directory", 0o2755, 0, 0, 1_795_000_000_000_000_001),
    Member("day/a\nb", "file", 0o640, 1000, 3_000_000_000, 1_795_000_000_123_456_789, 5),
    Member("day/\udcff", "file", 0o4600, 0, 0, 7, 5),
    Member("day/" + "n" * 250, "file", 0o644, 0, 0, 10**18, 5),
    Member("day/ü/" + "d/" * 60 + "x", "file", 0o644, 0, 0, 10**18, 5),
    Member("day/link", "link", 0o777, 0, 0, 10**18, 0, "../\udcfe"),
]


@SEALS
def test_all_comes_back(recipient: str, identity: str) -> None:
    """Names of any bytes, modes, owners, times to the nanosecond, targets and contents."""
    data, done = packed(DAY, b"12345", recipient)
    assert done == list(members(io.BytesIO(data), identity))
    assert 1 == len({member.digest for member in done if member.kind == "file"})


@SEALS
def test_stock_tools_open_it(tmp_path: Path, recipient: str, identity: str) -> None:
    """`tar --zstd`, after `age -d` where it is sealed."""
    file, key, out = tmp_path / "day.tar.zst", tmp_path / "key", tmp_path / "out"
    file.write_bytes(packed(DAY, b"12345", recipient)[0])
    key.write_text(f"{KEY}\n")
    out.mkdir()
    opened = f"age -d -i {key} {file}" if identity else f"cat {file}"
    try:
        subprocess.run(f"{opened} | tar --zstd -C {out} -xpf -", shell=True, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        if b"not found" in error.stderr:
            pytest.skip("tar, zstd and age are not all here")
        raise
    assert b"12345" == (out / "day/a\nb").read_bytes() == (out / "day/\udcff").read_bytes()
    found = (out / "day/a\nb").stat()
    assert (0o640, 1_795_000_000_123_456_789) == (found.st_mode & 0o7777, found.st_mtime_ns)
    assert "../\udcfe" == os.readlink(out / "day/link")


@SEALS
def test_half_of_it_is_an_error(recipient: str, identity: str) -> None:
    """Wherever it is cut, and whichever byte is another one, it is not taken for whole."""
    data, done = packed(DAY, os.urandom(5), recipient)
    for cut in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises((ValueError, OSError)):
            list(members(io.BytesIO(data[:cut]), identity))
    for place in range(0, len(data), 11):
        flipped = bytearray(data)
        flipped[place] ^= 1
        try:
            assert done == list(members(io.BytesIO(bytes(flipped)), identity))
        except (ValueError, OSError):
            continue


@SEALS
def test_a_full_disk_is_told_as_such(recipient: str, identity: str) -> None:
    """Its own error, whatever library comes between."""
    del identity

    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    def pack(count: int) -> None:
        with packing(Full(), recipient) as packer:  # type: ignore[arg-type]
            for number in range(count):
                packer.add(DAY[0]._replace(name=f"{number}" + "x" * 200, mtime_ns=hash(str(number))))

    for count in (1, 5000):
        with pytest.raises(OSError, match="No space left"):
            pack(count)


@pytest.mark.parametrize("record", [b"9" * 30 + b" a=b\n", b"21 mtime=1.5\n", b"0 a=b\n", b"20 mtime=1e99999999\n"])
def test_a_header_that_makes_no_sense_is_an_error(record: bytes) -> None:
    """Whatever stands in a tar that somebody has put there, it is not whole: no other error comes out."""
    name = tarfile.TarInfo("././@PaxHeader")
    name.type, name.size = tarfile.XHDTYPE, len(record)
    file = tarfile.TarInfo("a")
    content = name.tobuf() + record.ljust(512, b"\0") + file.tobuf() + bytes(1024)
    with pytest.raises(ValueError, match=r"whole|invalid|int"):
        list(members(io.BytesIO(ZstdCompressor().compress(content))))


def test_the_wrong_key_opens_nothing() -> None:
    """And says so."""
    data, _ = packed(DAY, b"12345", recipient_of(KEY))
    with pytest.raises(ValueError, match=r"."):
        list(members(io.BytesIO(data), new_identity()))


NAMES = st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=20)
                 .filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.builds(
            Member,
            name=NAMES.filter(
                lambda name: all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in name)
            ),
            kind=st.just("file"),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32 - 2),
            gid=st.integers(0, 2**32 - 2),
            mtime_ns=st.integers(-(10**18), 10**19),
            size=st.just(3),
            target=st.just(""),  # a file has none
            digest=st.just(b""),
        ),
        max_size=5,
    )
)
def test_any_member_comes_back(wanted: list[Member]) -> None:
    """Whatever its name, mode, owner or time is."""
    data, done = packed(wanted, b"abc")
    assert done == list(members(io.BytesIO(data)))


def test_what_follows_the_end_is_looked_at() -> None:
    """A tar may end with more blanks than it needs; and the checksum behind them counts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    data = ZstdCompressor(write_checksum=True).compress(out.getvalue() + bytes(1 << 18))
    assert ["a"] == [member.name for member in members(io.BytesIO(data))]
    with pytest.raises(ValueError, match="not a whole packed file"):
        list(members(io.BytesIO(data[:-1] + bytes([data[-1] ^ 1]))))


def test_what_is_neither_a_directory_nor_a_file_nor_a_link_is_refused() -> None:
    """Nothing like that is ever packed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    with pytest.raises(ValueError, match="'pipe' is neither a directory, a file nor a link"):
        list(members(io.BytesIO(ZstdCompressor().compress(out.getvalue()))))
