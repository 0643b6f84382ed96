"""Which gate: whole with --full, reduced in CI."""

from collections.abc import Callable

import pytest

from tests.calibration.cells import FULL, Gate, Judge


@pytest.fixture
def judge(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Judge:
    """Return the judge of this session."""
    return Judge(FULL if request.config.getoption("--full") else Gate.reduced(500), record_property)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whole cells time: 2,000 repetitions on a busy machine take longer than a test of the suite may."""
    for item in items:
        if "calibration" in item.path.parts and item.config.getoption("--full"):
            item.add_marker(pytest.mark.timeout(7200))
