"""Which gate: whole with --full, reduced in CI."""

import pytest

from tests.calibration.cells import FULL, REDUCED, Gate


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Return the gate of this session."""
    return FULL if request.config.getoption("--full", default=False) else REDUCED
