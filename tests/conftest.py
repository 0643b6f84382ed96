"""Options of the whole suite, and what tests of several rooms share: a bucket."""

import secrets
from collections.abc import Iterator

import pytest

from tests.s3 import CREDENTIALS, make_bucket, s3_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="try whole enumerations, where CI tries a part of them")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an S3 server once."""
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def bucket_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty prefix of a new bucket, with the environment that opens it."""
    name = f"bucket-{secrets.token_hex(4)}"
    make_bucket(s3_endpoint, name)
    for variable, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}/some/prefix"
