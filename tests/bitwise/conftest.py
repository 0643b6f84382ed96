"""`--full` (make test-bitwise) tries everything; without it a part that fits into CI."""

import pytest


@pytest.fixture
def every(request: pytest.FixtureRequest) -> int:
    """Return which part of an enumeration is tried: every so many of its members."""
    return 1 if request.config.getoption("--full") else 5
