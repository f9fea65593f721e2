"""Shipped units made to fit a machine, and drop-ins for what lies elsewhere."""

import pytest

from symbiont_datad.service.shipped import shipped
from symbiont_datad.service.unit import Places, adapted, drop_in, instance, quoted

SERVICE = shipped("systemd/symbiont-datad.service")
TEMPLATE = shipped("systemd/symbiont-datad@.service")


def lines(text: str) -> set[str]:
    """The lines that are no comment."""
    return {line for line in text.splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("systemd", "has", "lacks"),
    [
        (252, ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID"], ["RestartSteps=6", "RestartMaxDelaySec=60"]),
        (253, ["Type=notify-reload"], ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "RestartSteps=6"]),
        (254, ["Type=notify-reload", "RestartSteps=6", "RestartMaxDelaySec=60"], ["Type=notify"]),
    ],
)
@pytest.mark.parametrize("name", ["symbiont-datad", "symbiont-datad@", "user/symbiont-datad"])
def test_what_a_systemd_knows(name: str, systemd: int, has: list[str], lacks: list[str]) -> None:
    """Each version gets the newest that it knows and nothing that it would complain of."""
    found = lines(adapted(shipped(f"systemd/{name}.service"), systemd, "/opt/x/symbiont-datad"))
    assert set(has) <= found
    assert set() == set(lacks) & found
    assert "ExecStart=/opt/x/symbiont-datad run" in found


def test_a_newer_systemd_says_nothing_of_missing_credentials() -> None:
    """`ImportCredential=` where it is known, under the same names."""
    password = "symbiont_datad_backup__password"
    assert f"LoadCredential={password}" in lines(adapted(SERVICE, 253, "/x"))
    assert f"ImportCredential={password}" in lines(adapted(SERVICE, 254, "/x"))
    assert f"LoadCredential={password}:{password}.%i" in lines(adapted(TEMPLATE, 256, "/x"))
    assert f"ImportCredential={password}.%i:{password}" in lines(adapted(TEMPLATE, 257, "/x"))


@pytest.mark.parametrize("systemd", [252, 257])
def test_nothing_else_is_changed(systemd: int) -> None:
    """What is not about versions or the program stays word for word."""
    about = ("Type=", "ExecReload=", "ExecStart=", "Restart", "LoadCredential=", "ImportCredential=")
    told = ("# From systemd 253", "# waits until", *about)
    before, after = (
        [line for line in text.splitlines() if not line.startswith(told)]
        for text in (SERVICE, adapted(SERVICE, systemd, "/x"))
    )
    assert before == after


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/x/symbiont-datad", "/opt/x/symbiont-datad"),
        ("/opt/my tools/x", '"/opt/my tools/x"'),
        ("/opt/100%/x", "/opt/100%%/x"),
        ('/opt/a"b/x', '"/opt/a\\"b/x"'),
        ("/opt/$HOME/x", '"/opt/$$HOME/x"'),
        ("/opt/ü/x", '"/opt/ü/x"'),
    ],
)
def test_paths_are_words(path: str, expected: str) -> None:
    """Whatever is in it, systemd reads it as one word, and expands nothing."""
    assert expected == quoted(path)


def test_a_tree_elsewhere_is_the_shipped_example() -> None:
    """The drop-in that is written for /srv/symbiont is the one that comes as an example."""
    places = Places((("SYMBIONT_DATAD_ROOT_DATA_DIR", "/srv/symbiont/data"),), ("/srv/symbiont",))
    assert lines(shipped("systemd/drop-ins/tree.conf")) == lines(drop_in(places))


def test_what_a_home_directory_holds_is_all_that_is_seen_of_it() -> None:
    """Bound into an empty /home; what the template bound is taken back first."""
    text = drop_in(Places((), ("/srv/bob/.symbiont",), hidden=True))
    assert "ProtectHome=tmpfs\nBindPaths=\nBindPaths=/srv/bob/.symbiont\n" in text


def test_nothing_to_say_is_no_drop_in() -> None:
    """For the usual places there is no file."""
    assert "" == drop_in(Places())


@pytest.mark.parametrize("name", ["ada", "ada-2", "_svc", "a.b"])
def test_instances(name: str) -> None:
    """A user's name is the instance's."""
    assert f"symbiont-datad@{name}.service" == instance(name)


@pytest.mark.parametrize("name", ["", "-rf", "a b", "a/b", "../x", "a@b", "ü"])
def test_names_that_are_no_instance(name: str) -> None:
    """What would be another unit, or none, is refused."""
    with pytest.raises(ValueError, match="can't be part of a unit's name"):
        instance(name)
