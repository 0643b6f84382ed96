"""TensorBoard's and W&B's files: what a writer of their formats writes is read, cut and damaged files are told."""

import json
from pathlib import Path
from struct import pack
from zlib import crc32

import pytest
from typer.testing import CliRunner

from jobs.errors import ImportRefused
from orchestrator.cli import app
from orchestrator.imports.tensorboard import masked_crc32c, read_events
from orchestrator.imports.wandb_files import read_offline, records
from orchestrator.imports.wire import fields


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def part(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def tf_record(body: bytes) -> bytes:
    length = pack("<Q", len(body))
    return length + pack("<I", masked_crc32c(length)) + body + pack("<I", masked_crc32c(body))


def event(step: int, tag: str, value: float, tensor: bool = False) -> bytes:
    scalar = part(8, varint(1 << 3) + b"\x01" + part(4, pack("<f", value))) if tensor else b"\x15" + pack("<f", value)
    summary = part(5, part(1, part(1, tag.encode()) + scalar))
    return tf_record(b"\x09" + pack("<d", 1.7e9 + step) + varint(2 << 3) + varint(step) + summary)


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720, B.4: 32 bytes of zero have the CRC-32C 8a9136aa; TFRecord rotates it and adds a constant."""
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tensorboard(folder: Path) -> Path:
    for width in (4, 8):
        for seed in (0, 1, 2):
            run = folder / f"width={width}" / f"seed={seed}"
            run.mkdir(parents=True)
            body = tf_record(b"\x09" + pack("<d", 1.7e9) + part(3, b"brain.Event:2"))
            for step in (0, 500, 1000):
                body += event(step, "accuracy", step / 1000 * width / 8, tensor=seed == 1)
            (run / "events.out.tfevents.1").write_bytes(body)
    return folder


def test_scalars_of_both_forms_with_what_the_folders_say(tmp_path: Path) -> None:
    table = read_events(tensorboard(tmp_path))
    assert table.num_rows == 18
    assert {(r["width"], r["seed"], r["run"]) for r in table.to_pylist()} >= {(8, 1, "width=8/seed=1")}
    last = [row for row in table.to_pylist() if row["step"] == 1000]
    assert sorted(row["value"] for row in last) == [0.5] * 3 + [1.0] * 3


def test_a_cut_file_ends_earlier_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    tensorboard(tmp_path)
    path = tmp_path / "width=4" / "seed=0" / "events.out.tfevents.1"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert read_events(tmp_path).num_rows == 17
    path.write_bytes(whole[:-10] + b"\xff" + whole[-9:])
    with pytest.raises(ImportRefused, match="wrong checksum"):
        read_events(tmp_path)
    with pytest.raises(ImportRefused, match="no folder with TensorBoard"):
        read_events(tmp_path / "nowhere")


MAP = """\
step: step
metric: metric
value: value
factors: {model.width: WIDTH}
seed: SEED
fragment: file
success: {metric: accuracy, threshold: 0.9, sustained: 1}
"""


@pytest.mark.parametrize(
    ("kind", "width", "seed"), [("tensorboard", "width", "seed"), ("wandb", "config.width", "config.seed")]
)
def test_the_command_line(kind: str, width: str, seed: str, tmp_path: Path) -> None:
    logs = tensorboard(tmp_path / "logs") if kind == "tensorboard" else offline(tmp_path / "logs")
    (tmp_path / "map.yaml").write_text(MAP.replace("WIDTH", width).replace("SEED", seed))
    common = ["import", kind, str(logs), "--map", str(tmp_path / "map.yaml"), "--study", "w"]
    done = CliRunner().invoke(app, [*common, "--store", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["runs"], told["conditions"], told["rows"], told["status"]) == (6, 2, 18, {"finished": 6})
    status = CliRunner().invoke(app, ["status", "w", "--store", str(tmp_path / "s"), "--json"])
    assert [c["successes"] for c in json.loads(status.output)[0]["conditions"]] == [0, 3]


def leveldb(bodies: list[bytes]) -> bytes:
    """Return W&B's log of records, cut where blocks of 32 KiB end."""
    data = b":W&B" + pack("<HB", 0xBEE1, 0)
    for body in bodies:
        first = True
        while True:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += bytes(left)
                left = 32768
            taken, body = body[: left - 7], body[left - 7 :]
            kind = (1 if not body else 2) if first else (4 if not body else 3)
            data += pack("<IHB", crc32(taken, crc32(bytes([kind]))), len(taken), kind) + taken
            first = False
            if not body:
                break
    return data


def item(key: str, value: object) -> bytes:
    return part(
        1, part(1, key.encode()) + varint(16 << 3 | 2) + varint(len(json.dumps(value))) + json.dumps(value).encode()
    )


def offline(folder: Path) -> Path:
    for width in (4, 8):
        for seed in (0, 1, 2):
            run = folder / f"offline-run-{width}{seed}"
            run.mkdir(parents=True)
            name = f"id{width}{seed}"
            config = part(4, item("width", width) + item("seed", seed) + item("tags", ["a"]))
            bodies = [part(17, part(1, name.encode()) + config)]
            for step in (0, 500, 1000):
                logged = item("_step", step) + item("accuracy", step / 1000 * width / 8) + item("note", "x" * 20_000)
                bodies.append(part(2, logged))
            (run / f"run-{name}.wandb").write_bytes(leveldb(bodies))
    return folder


def test_offline_runs_with_their_configuration_over_several_blocks(tmp_path: Path) -> None:
    table = read_offline(offline(tmp_path))
    assert table.num_rows == 18
    assert "config.tags" not in table.column_names
    rows = [row for row in table.to_pylist() if row["run"] == "id82"]
    assert [(row["step"], row["value"], row["config.width"], row["config.seed"]) for row in rows] == [
        (0, 0.0, 8, 2),
        (500, 0.5, 8, 2),
        (1000, 1.0, 8, 2),
    ]


def test_offline_runs_that_are_cut_or_damaged(tmp_path: Path) -> None:
    path = next(offline(tmp_path).rglob("run-id40.wandb"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert read_offline(tmp_path).num_rows == 17
    path.write_bytes(whole[:20] + b"\xff" + whole[21:])
    with pytest.raises(ImportRefused, match="wrong checksum"):
        read_offline(tmp_path)
    with pytest.raises(ValueError, match="does not begin"):
        list(records(b"something else"))


@pytest.mark.parametrize("bad", [b"\x0a\x05ab", b"\x80", b"\x0b", b"\xff" * 11])
def test_bytes_that_are_no_message(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|none|longer"):
        list(fields(bad))
