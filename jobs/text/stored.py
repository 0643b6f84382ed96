"""Where corpora lie, as the store knows it: told when a study is submitted, and again when one has moved."""

from jobs.errors import AlreadyExists, Corrupt
from jobs.layout import corpus_key
from jobs.store import Store, get_record, put_record


def tell_address(store: Store, digest: str, url: str) -> None:
    """Put into the store where the corpus with this digest lies, if it does not say so already."""
    number = _newest(store, digest)
    if number and get_record(store, corpus_key(digest, number))["url"] == url:
        return
    try:
        put_record(store, corpus_key(digest, number + 1), {"url": url})
    except AlreadyExists:  # another submission told of it at the same time
        tell_address(store, digest, url)


def told_address(store: Store, digest: str) -> str:
    """Return where the corpus with this digest lies; raises Corrupt where the store was never told."""
    number = _newest(store, digest)
    if not number:
        raise Corrupt(corpus_key(digest, 1), "is missing: the store does not say where this corpus lies")
    return str(get_record(store, corpus_key(digest, number))["url"])


def _newest(store: Store, digest: str) -> int:
    return len(store.keys(corpus_key(digest, 0).removesuffix("0000.json")))
