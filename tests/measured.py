"""A plugin of `scripts/coverage`: what a test process reached is saved when its last test has ended.

At its exit there may be no time for that: pytest-xdist kills a worker that takes longer than ten seconds to leave.
"""

from coverage import Coverage


def pytest_sessionfinish() -> None:
    """Save it; what is reached afterwards is saved at the exit."""
    measuring = Coverage.current()
    if measuring is not None:
        measuring.save()
