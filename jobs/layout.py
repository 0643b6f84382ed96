"""Every key of the store, in one place.

The number of an attempt is in the key of its claim, and the number of a launch in the name of its pack, so
two attempts never write under one name.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

_BEAT = re.compile(r"^beats/(?P<pack_id>[^/]+)\.(?P<number>\d{8})\.json$")
_DRIVER = re.compile(r"^drivers/(?P<study>[^/]+)\.(?P<epoch>\d{6})(?:\.(?P<what>json|released\.json|\d{8}\.beat))$")
KEPT_OF_STUDY = ("proofs", "decisions", "verdicts", "drivers")  # folders of records that stay, beside its revisions
_KEPT = re.compile(r"^(?:proofs|decisions|verdicts)/(?P<study>.+)\.\d{4,}\.json$")
_ATTEMPT = re.compile(r"^attempts/(?P<run_id>[^/]+)\.(?P<attempt>\d{4})\.json$")


def study_key(study: str, revision: int) -> str:
    """Return the key of a study as it was submitted the `revision`-th time with a change."""
    return f"studies/{study}.{revision:04d}.json"


def proof_key(study: str, number: int) -> str:
    """Return the key of the study's proof of seeds, made for the `number`-th time with a change."""
    return f"proofs/{study}.{number:04d}.json"


def decision_key(study: str, number: int) -> str:
    """Return the key of what the study's stop rule decided at its `number`-th look."""
    return f"decisions/{study}.{number:04d}.json"


def verdict_key(study: str, number: int) -> str:
    """Return the key of what the `number`-th verification of the study found."""
    return f"verdicts/{study}.{number:04d}.json"


def task_key(code: str) -> str:
    """Return the key of the source of a user's own task with this `sha256:…` code."""
    return f"tasks/{code.removeprefix('sha256:')}.py"


def corpus_key(digest: str, number: int) -> str:
    """Return the key of where the corpus with this `sha256:…` digest lies, as it was told the `number`-th time."""
    return f"corpora/{digest.removeprefix('sha256:')}.{number:04d}.json"


def file_key(digest: str) -> str:
    """Return the key of a small file that studies name, with this `sha256:…` digest."""
    return f"files/{digest.removeprefix('sha256:')}"


def seen_key(scope: str, factor: str, what: str) -> str:
    """Return the key of what a script has seen of a factor of its seeds: `seed-N` or `digest-…`, in a condition."""
    return f"seen/{scope}/{factor}.{what}.json"


def mirror_folder(mirror: str, study: str) -> str:
    """Return the prefix of the records of what a mirror, such as wandb, was sent of a study."""
    return f"mirrors/{mirror}/{study}/"


def attempt_key(run_id: str, attempt: int) -> str:
    """Return the key of the claim of an attempt: whoever puts it has the run."""
    return f"attempts/{run_id}.{attempt:04d}.json"


def parse_attempt_key(key: str) -> tuple[str, int] | None:
    """Return the run and the number of an attempt's key, or None for any other key."""
    found = _ATTEMPT.match(key)
    return (found["run_id"], int(found["attempt"])) if found else None


def beat_key(pack_id: str, number: int) -> str:
    """Return the key of a pack's beat; all beats lie in one folder, so that one listing tells who is alive."""
    return f"beats/{pack_id}.{number:08d}.json"


def parse_beat_key(key: str) -> tuple[str, int] | None:
    """Return the pack and the number of a beat's key, or None for any other key."""
    found = _BEAT.match(key)
    return (found["pack_id"], int(found["number"])) if found else None


@dataclass(frozen=True, slots=True)
class DriverKeys:
    """The keys of one epoch of a study's drivers: whoever puts `claim` has the study."""

    study: str
    epoch: int

    @property
    def claim(self) -> str:
        """Return the key that the driver of this epoch puts first."""
        return f"drivers/{self.study}.{self.epoch:06d}.json"

    @property
    def released(self) -> str:
        """Return the key that says that this driver has left the study by itself."""
        return f"drivers/{self.study}.{self.epoch:06d}.released.json"

    def beat(self, number: int) -> str:
        """Return the key of one of this driver's beats."""
        return f"drivers/{self.study}.{self.epoch:06d}.{number:08d}.beat"


def parse_driver_key(key: str) -> tuple[str, int, str] | None:
    """Return study, epoch and what it is (`json`, `released.json`, `NUMBER.beat`) of a driver's key, or None."""
    found = _DRIVER.match(key)
    return (found["study"], int(found["epoch"]), found["what"]) if found else None


def pack_of(key: str) -> str:
    """Return the pack that wrote the file under `key`."""
    return key.split("/")[1]


def is_of_study(key: str, study: str) -> bool:
    """Return whether a record is one of those of the study that stay: none of its beats, and of no study like it."""
    kept, driver = _KEPT.match(key), parse_driver_key(key)
    if driver:
        return driver[0] == study and not driver[2].endswith(".beat")
    return kept is not None and kept["study"] == study


@dataclass(frozen=True, slots=True)
class PackKeys:
    """The keys of one launched pack."""

    pack_id: str

    @property
    def folder(self) -> str:
        """Return the prefix of everything the pack writes."""
        return f"packs/{self.pack_id}/"

    @property
    def request(self) -> str:
        """Return the key of what the head asked for."""
        return f"{self.folder}request.json"

    @property
    def claim(self) -> str:
        """Return the key that the process which carries the pack out puts first."""
        return f"{self.folder}claim.json"

    @property
    def given_up(self) -> str:
        """Return the key by which a head says that it counts on this pack no more: it shall claim no run."""
        return f"{self.folder}given-up.json"

    @property
    def outcome(self) -> str:
        """Return the key of how the pack ended, run by run."""
        return f"{self.folder}outcome.json"

    @property
    def log(self) -> str:
        """Return the key of the pack's log."""
        return f"{self.folder}log.txt"

    @property
    def shards(self) -> str:
        """Return the prefix of the pack's shards of metric rows."""
        return f"{self.folder}shards/"

    @property
    def checkpoints(self) -> str:
        """Return the prefix of the pack's checkpoints."""
        return f"{self.folder}checkpoints/"

    @property
    def parts(self) -> str:
        """Return the prefix of the parts of checkpoints that lie on several processes."""
        return f"{self.folder}parts/"

    def shard(self, number: int) -> str:
        """Return the key of the pack's shard `number`."""
        return f"{self.shards}{number:06d}.parquet"

    def checkpoint(self, step: int) -> str:
        """Return the key of the pack's checkpoint at `step`."""
        return f"{self.checkpoints}{step:012d}.safetensors"

    def part(self, step: int, number: int, count: int) -> str:
        """Return the key of what process `number` (from 0) of `count` saves of the checkpoint at `step`."""
        return f"{self.parts}{step:012d}.{number + 1}-of-{count}.safetensors"


def table_folder(study: str, version: int) -> str:
    """Return the prefix of one version of a study's tables."""
    return f"tables/{study}.{version:06d}/"


def part_key(study: str, version: int, condition_id: str, number: int) -> str:
    """Return the key of one file of the table `metrics`, in folders named as Hive names its partitions."""
    place = f"metrics/condition_id={quote(condition_id, safe='')}/part-{number:05d}.parquet"
    return table_folder(study, version) + place
