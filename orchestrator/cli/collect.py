"""`seedbed collect`: shards → tables, on this machine or as tasks of a cluster."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, Address, AsJson, Cpus, Insecure, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, working
from orchestrator.collected import Map, on_threads, watched
from orchestrator.library import Library
from orchestrator.text import duration, size

IN_THE_STORE = "tables/made/"  # where nodes leave parts until they are in a version of the tables


def command(
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    ray: Annotated[bool, typer.Option("--ray", help="Make the parts as tasks of a Ray that is started here.")] = False,
    cpus: Cpus = 0,
    address: Address = "",
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Make the tables of a study anew where there are new rows, and commit them to the store.

    Every verb that reads does this for itself. By itself it is for studies that are large (--address: parts are made
    on the nodes of a running Ray, which must reach the store), and for readers without Seedbed: the tables are plain
    Parquet under tables/. The bytes are the same wherever they were made, and a second call writes nothing.

    [bold]Example:[/bold] seedbed collect widths --store s3://bucket/results --address auto
    """
    began = time.monotonic()
    opened = open_store(store)
    name = Library(opened).only(study)
    on_ray = ray or bool(address)
    with (
        working(f"{name}: collecting", quiet=as_json) as watch,
        _place(on_ray, cpus, address, insecure) as (place, sink),
    ):
        tables = Library(opened, watched(place, watch), sink).collect(name)
    rows, stored = (sum(getattr(p.part, what) for p in tables.parts) for what in ("rows", "size_bytes"))
    if as_json:
        told = {"study": name, "rows": rows, "parts": len(tables.parts), "size_bytes": stored}
        print_json(told | {"findings": tables["audit"].num_rows})
        return
    text = f"{name}: {rows:,} rows of {tables['runs'].num_rows:,} runs in {len(tables.parts):,} parts, {size(stored)}"
    console.print(f"{text}, in {duration(time.monotonic() - began)}.", highlight=False, markup=False)
    if findings := tables["audit"].num_rows:
        console.print(f"{findings:,} findings in the table `audit`.", highlight=False, markup=False)


@contextmanager
def _place(on_ray: bool, cpus: int, address: str, insecure: bool) -> Iterator[tuple[Map, str]]:
    """Yield how parts are made, and the prefix in the store where they are left; empty for a folder of this machine."""
    if not on_ray:
        yield on_threads, ""
        return
    from orchestrator.clusters.inline import available_cpus
    from orchestrator.clusters.ray_map import RayMap
    from orchestrator.clusters.ray_start import attach_ray, start_ray  # Ray takes a second

    started = attach_ray(address, insecure=insecure) if address else start_ray(cpus or available_cpus())
    try:
        yield RayMap(started), IN_THE_STORE
    finally:
        started.shutdown()
