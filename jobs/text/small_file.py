"""Small files that a study names beside its corpora, such as minimal pairs: they travel with it as text.

Their SHA-256 is in a run's identity; where they lay is not.
"""

from pathlib import Path

from jobs.errors import Corrupt, Fault, TextRefused
from jobs.identity import sha256
from jobs.text.corpus import Place

MOST_BYTES = 1 << 22  # its text is in the record of every study that names it


def find_file(named: str, folder: Path) -> Place:
    """Return the file that a study in `folder` calls `named`, with its text; raises TextRefused."""
    path = folder / named
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise TextRefused((Fault(named, 0, "", f"cannot be read: {error.strerror}"),)) from None
    except UnicodeDecodeError as error:
        raise TextRefused((Fault(named, 0, "", f"is not text in UTF-8: {error.reason}"),)) from None
    if not 0 < len(data) <= MOST_BYTES:
        told = f"has {len(data):,} bytes: a file that travels with a study has 1 to {MOST_BYTES:,}"
        raise TextRefused((Fault(named, 0, "", told),))
    return Place(named, f"sha256:{sha256(data)}", str(path.absolute()), text)


def text_along(data: bytes, named: str) -> str:
    """Return the text of a file that goes along with a study; raises ValueError, which says what is wrong with it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{named} is not text in UTF-8: {error.reason}") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"{named} has {len(data):,} bytes: a file that goes along has at most {MOST_BYTES:,}")
    return text


def read_file(address: str, digest: str) -> str:
    """Return the text of the file with this digest; raises Corrupt where another one is there, or none."""
    try:
        data = Path(address).read_bytes()
    except OSError as error:
        raise Corrupt(address, f"cannot be read: {error.strerror}") from None
    if f"sha256:{sha256(data)}" != digest:
        raise Corrupt(address, f"is another file than the study was made for ({digest[:19]}…)")
    return data.decode("utf-8")
