"""Repositories: made, opened, their keys, their small files and their blobs; and what each failure says."""

import os
import shutil
import subprocess
import time
import tracemalloc
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.restic import compression, polynomial
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.crypto import Key, Scrypt
from symbiont_datad.restic.errors import (
    Damaged,
    Missing,
    NoRepository,
    RepositoryError,
    RepositoryExists,
    WrongPassword,
)
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.metadata import time_ns
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.records import Config, Lock, Snapshot, Summary, format_time, format_time_ns, parse_time
from symbiont_datad.restic.repository import Repository, create_repository, open_repository, read_whole
from symbiont_datad.restic.writer import Writer
from tests.restic.making import IDENTITY, PASSWORD, make_repository, reopen

NOW = "2026-11-23T10:00:00Z"
CHEAP = Scrypt(n=1 << 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the repository is, or will be."""
    return tmp_path / "repository"


def open_with(path: Path, password: str) -> Repository:
    """The repository, opened with this password."""
    return open_repository(LocalBackend(str(path)), password)


def contents(path: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def replace_config(repository: Repository, text: bytes) -> None:
    """Seal another config with the repository's key."""
    repository.backend.save(FileKind.CONFIG, "", [repository.key.seal(text)])


class TestCreate:
    """A new repository."""

    def test_layout(self, path: Path) -> None:
        """A config and a key, whose name is its hash; all directories; nobody else may read anything."""
        repository = make_repository(path)
        assert {"config", f"keys/{repository.key_name}"} == set(contents(path))
        assert repository.key_name == sha256((path / "keys" / repository.key_name).read_bytes()).hexdigest()
        assert 256 == len(list((path / "data").iterdir()))
        assert {0o700} == {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_dir()}
        assert {0o600} == {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()}

    def test_config(self, path: Path) -> None:
        """Version 2, a random id, and a polynomial that restic takes."""
        config = make_repository(path).config
        assert (2, 64) == (config.version, len(config.id))
        assert polynomial.is_irreducible(int(config.chunker_polynomial, 16))
        assert config != make_repository(path.with_name("other")).config

    def test_twice(self, path: Path) -> None:
        """A second one in the same place is refused, and nothing changes."""
        make_repository(path)
        before = contents(path)
        with pytest.raises(RepositoryExists):
            make_repository(path)
        assert before == contents(path)

    @pytest.mark.parametrize("seen", [True, False], ids=["which sees this key", "which does not see this key"])
    def test_another_host_is_quicker(self, path: Path, seen: bool) -> None:
        """Both end up in the same repository, and a key that does not open it goes."""
        others: list[Repository] = []

        class Beaten(LocalBackend):
            """A directory in which another host makes a repository before this one looks for a config once more."""

            looks = 0

            def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
                self.looks += kind is FileKind.CONFIG
                if self.looks == 2 and not others:
                    (own,) = (path / "keys").iterdir()
                    if not seen:
                        own.rename(path / "hidden")
                    others.append(make_repository(path))
                    if not seen:
                        (path / "hidden").rename(own)
                return super().load(kind, name, offset, length)

        backend = Beaten(str(path))
        repository = create_repository(backend, PASSWORD, IDENTITY, time.time(), scrypt=CHEAP, settle_s=0)
        (other,) = others
        assert (other.config, other.key_name) == (repository.config, repository.key_name)
        assert [other.key_name] == os.listdir(path / "keys")

    def test_config_is_lost(self, path: Path) -> None:
        """Where a repository lost its config, no new one is made over it."""
        repository = make_repository(path)
        repository.save_snapshot(Snapshot(NOW, "ab" * 32, ["/"]))
        (path / "config").unlink()
        before = contents(path)
        with pytest.raises(RepositoryExists):
            make_repository(path)
        assert before == contents(path)

    @pytest.mark.slow
    def test_restic_opens_it(self, path: Path) -> None:
        """restic takes it for whole, with either of two passwords."""
        program = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
        if program is None:
            pytest.skip("restic is not installed")
        make_repository(path).add_key("second", IDENTITY, time.time(), CHEAP)
        for password, code in ((PASSWORD, 0), ("second", 0), ("third", 1)):
            done = subprocess.run(
                [program, "--no-cache", "-r", str(path), "check"],
                env={"RESTIC_PASSWORD": password, "PATH": os.environ["PATH"], "HOME": str(path)},
                capture_output=True,
                timeout=60,
            )
            assert code == min(done.returncode, 1), done.stderr


class TestOpen:
    """An existing repository."""

    def test_nothing_there(self, path: Path) -> None:
        """No directory, and an empty one: there is no repository, and none comes to be."""
        with pytest.raises(NoRepository):
            reopen(path)
        assert not path.exists()
        path.mkdir()
        with pytest.raises(NoRepository):
            reopen(path)
        assert {} == contents(path)

    @pytest.mark.parametrize("password", ["", "A password", "a password\n"])
    def test_wrong_password(self, path: Path, password: str) -> None:
        """A wrong password is told as that."""
        make_repository(path)
        with pytest.raises(WrongPassword, match="the password is wrong"):
            open_with(path, password)

    def test_no_secret_in_the_message(self, path: Path) -> None:
        """The message does not say what was tried."""
        make_repository(path)
        with pytest.raises(WrongPassword) as caught:
            open_with(path, "sesame")
        assert "sesame" not in str(caught.value)

    def test_same_key(self, path: Path) -> None:
        """It opens to the same key and config."""
        made, found = make_repository(path), reopen(path)
        assert (made.key.to_master(), made.config, made.key_name) == (
            found.key.to_master(),
            found.config,
            found.key_name,
        )

    def test_damaged_key_beside_a_good_one(self, path: Path) -> None:
        """With one of two keys damaged, the other still opens."""
        repository = make_repository(path)
        repository.add_key("second", IDENTITY, time.time(), CHEAP)
        (path / "keys" / repository.key_name).write_bytes(b"{}")
        assert open_with(path, "second").config == repository.config
        with pytest.raises(Damaged, match=f"keys/{repository.key_name}"):
            open_with(path, "third")

    @pytest.mark.parametrize(
        ("config", "error", "says"),
        [
            (Config(3, "ab" * 32, f"{polynomial.random_irreducible():x}"), RepositoryError, "version 3"),
            (Config(2, "ab" * 32, "3da3358b4dc174"), Damaged, "polynomial"),
            (Config(2, "ab" * 32, "x"), Damaged, "polynomial"),
        ],
    )
    def test_config_that_we_can_not_use(self, path: Path, config: Config, error: type[Exception], says: str) -> None:
        """Another version, or a polynomial that restic would refuse."""
        replace_config(make_repository(path), msgspec.json.encode(config))
        with pytest.raises(error, match=says):
            reopen(path)

    def test_config_that_makes_no_sense(self, path: Path) -> None:
        """A config that is no JSON, or has a broken seal, is named."""
        replace_config(make_repository(path), b"{")
        with pytest.raises(Damaged, match="config: "):
            reopen(path)
        (path / "config").write_bytes(bytes(100))
        with pytest.raises(Damaged, match="config: "):
            reopen(path)

    def test_version_1(self, path: Path) -> None:
        """A repository of version 1 is read and written without compression."""
        repository = make_repository(path)
        replace_config(repository, msgspec.json.encode(msgspec.structs.replace(repository.config, version=1)))
        old = reopen(path)
        with Writer(old) as writer:
            blob, _ = writer.store(BlobType.DATA, b"a" * 10_000)
        assert 0 == old.index.find(blob).plain_length  # type: ignore[union-attr]
        found = reopen(path)
        found.load_index()
        assert b"a" * 10_000 == found.load_blob(blob)


class TestKeys:
    """Several passwords."""

    def test_add_and_remove(self, path: Path) -> None:
        """Each password opens the same repository, until its key is removed."""
        repository = make_repository(path)
        name = repository.add_key("second", IDENTITY, time.time() + 5, CHEAP)
        keys = repository.keys()
        assert [(repository.key_name, True), (name, False)] == [(entry.name, entry.current) for entry in keys]
        second = open_with(path, "second")
        assert (name, repository.key.to_master()) == (second.key_name, second.key.to_master())
        repository.remove_key(name)
        with pytest.raises(WrongPassword):
            open_with(path, "second")
        assert reopen(path).key_name == repository.key_name

    def test_last_key_stays(self, path: Path) -> None:
        """The key that opened the repository is not removed: it could be the last."""
        repository = make_repository(path)
        with pytest.raises(RepositoryError, match="open it with another"):
            repository.remove_key(repository.key_name)
        assert reopen(path).key_name == repository.key_name


class TestSmallFiles:
    """Snapshots, index files and locks."""

    @pytest.mark.parametrize("level", [None, 1, 19])
    def test_round_trip(self, path: Path, level: int | None) -> None:
        """What is saved is loaded, compressed or not, and the name is the file's hash."""
        repository = make_repository(path, level=level)
        text = b'{"text":"' + b"again " * 1000 + b'"}'
        name = repository.save_file(FileKind.SNAPSHOT, text)
        stored = (path / "snapshots" / name).read_bytes()
        assert name == sha256(stored).hexdigest()
        assert (len(stored) < 1000) == (level is not None)
        assert text == reopen(path).load_file(FileKind.SNAPSHOT, name)

    def test_snapshots(self, path: Path) -> None:
        """Snapshots are listed with their names, as they were saved."""
        repository = make_repository(path)
        saved = {}
        for tags in ([], ["backup"], ["autosave", "ü"]):
            snapshot = Snapshot(NOW, "ab" * 32, ["/a"], tags=tags, summary=Summary(NOW, NOW, *range(12)))
            saved[repository.save_snapshot(snapshot)] = snapshot
        assert saved == dict(reopen(path).snapshots())

    def test_missing(self, path: Path) -> None:
        """A file that is not there is missing, not damaged."""
        with pytest.raises(Missing):
            make_repository(path).snapshot("ab" * 32)

    @pytest.mark.parametrize("change", ["cut", "grown", "flipped", "empty"])
    def test_damaged(self, path: Path, change: str) -> None:
        """A file whose content changed is named."""
        repository = make_repository(path)
        name = repository.save_snapshot(Snapshot(NOW, "ab" * 32, ["/"]))
        file = path / "snapshots" / name
        content = file.read_bytes()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        changed = {"cut": content[:-1], "grown": content + b"\0", "flipped": flipped, "empty": b""}
        file.write_bytes(changed[change])
        with pytest.raises(Damaged, match=f"snapshots/{name}"):
            repository.snapshot(name)
        with pytest.raises(Damaged):
            list(repository.snapshots())

    @pytest.mark.parametrize(
        "plain", [b"", b"\x01{}", b"\x02", b"\x02garbage", b"\x02" + compression.compress(b"7", 3), b"{", b'{"\xff":7}']
    )
    def test_sealed_nonsense(self, path: Path, plain: bytes) -> None:
        """A file whose name and seal are right, but that holds no record, is named too."""
        repository = make_repository(path)
        sealed = repository.key.seal(plain)
        name = sha256(sealed).hexdigest()
        repository.backend.save(FileKind.SNAPSHOT, name, [sealed])
        with pytest.raises(Damaged, match=f"snapshots/{name}"):
            repository.snapshot(name)

    def test_locks(self, path: Path) -> None:
        """Locks come back as they were written, a broken one without its content, and go when removed."""
        repository = make_repository(path)
        lock = Lock(NOW, True, "host", "anna", 7, uid=3, gid=4)
        name = repository.write_lock(lock)
        assert {name: lock} == dict(repository.lock_files())
        (path / "locks" / name).write_bytes(b"?")
        assert {name: None} == dict(repository.lock_files())
        repository.remove_lock(name)
        repository.remove_lock(name)
        assert {} == dict(repository.lock_files())


class TestBlobs:
    """Blobs are found and read."""

    @settings(max_examples=10)
    @given(st.lists(st.binary(max_size=500), max_size=10), st.sampled_from([None, 3]))
    def test_round_trip(self, tmp_path_factory: pytest.TempPathFactory, blobs: list[bytes], level: int | None) -> None:
        """What was stored is read by whoever opens the repository."""
        path = tmp_path_factory.mktemp("blobs") / "repository"
        with Writer(make_repository(path, level=level)) as writer:
            ids = [writer.store(BlobType.DATA, blob)[0] for blob in blobs]
        repository = reopen(path)
        repository.need_index()
        assert blobs == [repository.load_blob(blob) for blob in ids]

    def test_unknown(self, path: Path) -> None:
        """A blob that no index names is missing."""
        with pytest.raises(Missing, match="ab" * 32):
            make_repository(path).load_blob(bytes.fromhex("ab" * 32))

    def test_damaged(self, path: Path) -> None:
        """A blob whose pack changed is damaged, and the pack is named; one whose pack is gone is missing."""
        with Writer(make_repository(path)) as writer:
            blob, _ = writer.store(BlobType.DATA, os.urandom(100))
        repository = reopen(path)
        repository.load_index()
        (pack,) = (file for file in (path / "data").rglob("*") if file.is_file())
        pack.write_bytes(bytes(pack.stat().st_size))
        with pytest.raises(Damaged, match=f"data/{pack.name}"):
            repository.load_blob(blob)
        pack.unlink()
        with pytest.raises(Missing):
            repository.load_blob(blob)

    def test_index_is_read_further(self, path: Path) -> None:
        """Index files that came since are read by the next `load_index`; none is read twice."""
        repository, other = make_repository(path), reopen(path)
        other.load_index()
        for number in range(3):
            with Writer(repository) as writer:
                blob, _ = writer.store(BlobType.DATA, b"%d" % number)
            assert other.find(blob) is None
            other.need_index()
            assert other.find(blob) is None
            other.load_index()
            assert other.find(blob) is not None
        other.load_index()
        assert 3 == len(other.index)

    def test_damaged_index(self, path: Path) -> None:
        """A damaged index file is named."""
        with Writer(make_repository(path)) as writer:
            writer.store(BlobType.DATA, b"1")
        (file,) = (path / "index").iterdir()
        file.write_bytes(file.read_bytes()[::-1])
        with pytest.raises(Damaged, match=f"index/{file.name}"):
            reopen(path).load_index()


class TestReadWhole:
    """Files whose name is their hash."""

    def test_read_again(self, path: Path) -> None:
        """What arrives damaged once is read again; what stays so is damaged."""
        content = b"content"
        name = sha256(content).hexdigest()

        class Twice(LocalBackend):
            answers: list[bytes]

            def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
                """The next answer."""
                return self.answers.pop(0)

        backend = Twice(str(path))
        backend.answers = [b"contant", content]
        assert content == read_whole(backend, FileKind.KEY, name)
        backend.answers = [b"contant", b"contant", content]
        with pytest.raises(Damaged):
            read_whole(backend, FileKind.KEY, name)


class TestPolynomial:
    """restic refuses a polynomial that is not irreducible."""

    @pytest.mark.parametrize("known", [0x3DA3358B4DC173, 0x3F513AB1BC8C35])
    def test_of_restic(self, known: int) -> None:
        """Those that restic chose are irreducible, and their neighbours are not all."""
        assert polynomial.is_irreducible(known)
        assert not polynomial.is_irreducible(known ^ 1)

    @given(st.integers(2, 1 << 26), st.integers(1 << 27, 1 << 52))
    def test_products(self, one: int, other: int) -> None:
        """No product of two others is."""
        product = 0
        for bit in range(one.bit_length()):
            if one >> bit & 1:
                product ^= other << bit
        assert not polynomial.is_irreducible(product)

    def test_share(self) -> None:
        """Of the polynomials of degree 53 one in 53 is irreducible, as theory has it."""
        found = sum(polynomial.is_irreducible(1 << 53 | at) for at in range(1, 5_001, 2))
        assert 0.7 < found / (5_000 / 53) < 1.3

    def test_other_degrees(self) -> None:
        """Only degree 53 is taken."""
        assert not polynomial.is_irreducible(0b111)
        assert not polynomial.is_irreducible(0)


class TestCompression:
    """zstd, one frame or many."""

    @given(st.lists(st.binary(max_size=300), max_size=20))
    def test_round_trip(self, plains: list[bytes]) -> None:
        """What was compressed is unpacked: one by one, with its size told or not, and many at once."""
        frames = [compression.compress(plain, 3) for plain in plains]
        assert plains == [
            compression.decompress(frame, len(plain)) for frame, plain in zip(frames, plains, strict=True)
        ]
        assert plains == [compression.decompress_any(frame) for frame in frames]
        filled = [(frame, len(plain)) for frame, plain in zip(frames, plains, strict=True) if plain]
        unpacked = compression.decompress_many([frame for frame, _ in filled], [size for _, size in filled])
        assert [plain for plain in plains if plain] == [bytes(plain) for plain in unpacked]

    @pytest.mark.parametrize("size", [4, 6, 1000])
    def test_other_size(self, size: int) -> None:
        """A frame that holds more or less than it should is damaged."""
        frame = compression.compress(b"12345", 3)
        with pytest.raises(Damaged):
            compression.decompress(frame, size)
        with pytest.raises(Damaged):
            compression.decompress_many([frame], [size])

    @pytest.mark.parametrize("frame", [b"", b"garbage", compression.compress(b"12345" * 100, 3)[:-1]])
    def test_no_frame(self, frame: bytes) -> None:
        """What is no whole frame is damaged."""
        with pytest.raises(Damaged):
            compression.decompress(frame, 500)
        with pytest.raises(Damaged):
            compression.decompress_many([frame], [500])

    def test_bomb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What would unpack to more than is allowed is refused."""
        monkeypatch.setattr(compression, "LARGEST", 1 << 20)
        assert 1 << 20 == len(compression.decompress_any(compression.compress(bytes(1 << 20), 3)))
        with pytest.raises(Damaged, match="more than"):
            compression.decompress_any(compression.compress(bytes((1 << 20) + 1), 3))

    def test_room_is_made_for_what_is_there(self) -> None:
        """A small file takes little memory, whatever the largest one may be."""
        frame = compression.compress(b"small", 3)
        tracemalloc.start()
        try:
            assert b"small" == compression.decompress_any(frame)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


class TestTime:
    """Times as Go writes them."""

    @pytest.mark.parametrize(
        ("ns", "text"),
        [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
            (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1 << 90, "9999-12-31T23:59:59"),
            (-(1 << 90), "0001-01-01T00:00:00"),
        ],
    )
    def test_format(self, ns: int, text: str) -> None:
        """Without trailing zeros; what Go can't write is moved to the nearest bound."""
        assert format_time_ns(ns).startswith(text)
        assert format_time_ns(ns).endswith("Z")

    @pytest.mark.parametrize(
        "text",
        ["2023-11-14T22:13:20.123456Z", "2023-11-14T23:13:20.123456789+01:00", "2023-11-14T17:13:20.123456-05:00"],
    )
    def test_parse(self, text: str) -> None:
        """Any zone, any number of digits; what is finer than microseconds is cut off."""
        assert datetime(2023, 11, 14, 22, 13, 20, 123456, UTC) == parse_time(text)

    def test_few_digits(self) -> None:
        """One digit is tenths of a second."""
        assert 500_000 == parse_time("2023-11-14T22:13:20.5Z").microsecond
        assert 0 == parse_time("2023-11-14T22:13:20Z").microsecond

    @pytest.mark.parametrize("text", ["", "yesterday", "2023-11-14T22:13:20.Zx"])
    def test_no_time(self, text: str) -> None:
        """What is no time is refused."""
        with pytest.raises(ValueError, match=r".*"):
            parse_time(text)

    @given(st.integers(0, 4_000_000_000_000_000))
    def test_round_trip(self, microseconds: int) -> None:
        """To the microsecond."""
        text = format_time_ns(microseconds * 1000)
        assert microseconds == round((parse_time(text) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
        assert format_time(microseconds // 10**6) == format_time_ns(microseconds // 10**6 * 10**9)


def test_key_of_somebody_else(path: Path) -> None:
    """A key file that opens with our password but to another key than the config's does not open the repository."""
    repository = make_repository(path)
    other = Repository(repository.backend, Key.random(), "", repository.config, 3)
    stray = other.add_key("stray", IDENTITY, time.time(), CHEAP)
    with pytest.raises(Damaged, match="config"):
        open_with(path, "stray")
    keys = repository.keys()
    assert stray in {entry.name for entry in keys}
    assert reopen(path).config == repository.config
    with pytest.raises(RepositoryExists):
        make_repository(path)


@pytest.mark.parametrize("text", ["2026-11-23T12:00:00", "2026-11-23", "2026-11-23T12:00:00.5", "", "now"])
def test_a_time_without_a_zone_is_none(text: str) -> None:
    """It could not be compared with others: one such snapshot must not hide all."""
    with pytest.raises(ValueError, match=r"zone|Invalid"):
        parse_time(text)
    with pytest.raises(Damaged, match="time"):
        time_ns(text)
