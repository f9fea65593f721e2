"""The copy in which mutants are made is the same program, and each module has sources and tests."""

from pathlib import Path

import pytest

import symbiont_datad
from tests.mutation.modules import MODULES
from tests.mutation.workspace import bared, function_of

TESTS = Path(__file__).parents[1]
PACKAGE = Path(symbiont_datad.__file__).parent


def test_what_has_a_decorator_is_laid_open() -> None:
    """A property is made after its function, a cache goes, and the rest stays as it is."""
    source = """
@dataclass(frozen=True)
class Box:
    side: int

    @property
    def size(self) -> int:
        return self.side**3

    @classmethod
    def unit(cls) -> "Box":
        return cls(1)


@lru_cache(maxsize=16)
def known(side: int) -> Box:
    return Box(side)
"""
    expected = """
@dataclass(frozen=True)
class Box:
    side: int

    def size(self) -> int:
        return self.side**3
    size = property(size)

    @classmethod
    def unit(cls) -> "Box":
        return cls(1)


def known(side: int) -> Box:
    return Box(side)
known.cache_clear = lambda: None
"""
    assert expected == bared(source)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_sources_and_tests(name: str) -> None:
    """What the table names is there, and what is laid open compiles."""
    module = MODULES[name]
    for pattern in module.sources:
        files = [*PACKAGE.glob(pattern)]
        assert files
        for file in files:
            compile(bared(file.read_text()), file, "exec")
    for test in (*module.tests, *module.without):
        path, _, function = test.partition("::")
        assert (TESTS / path).exists()
        assert not function or f"def {function}(" in (TESTS / path).read_text()


def test_the_function_of_a_mutant() -> None:
    """Methods have their class before them."""
    assert "Timetable.due" == function_of("symbiont_datad.timetable.xǁTimetableǁdue__mutmut_3")
    assert "put_off" == function_of("symbiont_datad.timetable.x_put_off__mutmut_12")
    assert "_listed" == function_of("symbiont_datad.timetable.x__listed__mutmut_1")
