"""A plugin of pytest for mutants: what makes many examples runs last, because most mutants fall to a single one."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests; those of one kind stay in their order."""
    items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))
