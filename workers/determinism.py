"""Every switch of determinism, and the fingerprint of what a result depends on beside the spec.

The number of threads is not part of the fingerprint: weights do not depend on it (powers of two; see
`models/family.py`).
"""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.claims import environment_digest

_ROOT = Path(__file__).resolve().parents[1]


def make_deterministic(threads: int, runs: int) -> None:
    """Set every switch of torch for this process, and the number of CPU threads for a pack of so many runs.

    Raises ValueError for a number of threads that is not a power of two.
    """
    if threads < 1 or threads & (threads - 1):
        raise ValueError(f"threads is a power of two, not {threads}")
    # With fewer matrices than threads MKL splits a single product, and with it the order of its sums.
    torch.set_num_threads(min(threads, 1 << (runs.bit_length() - 1)))
    torch.use_deterministic_algorithms(True)
    # New memory is written before it is read here; filling it with NaN first cost 2 to 4 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    # Subnormal numbers are slow and rounded to zero by some builds only: say which.
    torch.set_flush_denormal(False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: sums that several share out have other last bits with other numbers of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the numbers depend on beside the spec.

    facts  by name; `commit` is for the reader only: `source` says more exactly what code ran
    """

    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """Return 16 digits that are equal where all facts but the commit are."""
        return environment_digest(self.facts)

    def differences(self, other: Mapping[str, Any]) -> str:
        """Return in words which facts were otherwise."""
        names = sorted((set(self.facts) | set(other)) - {"commit"})
        changed = [name for name in names if self.facts.get(name) != other.get(name)]
        return ", ".join(f"{name} was {other.get(name)!r} and is {self.facts.get(name)!r}" for name in changed)


def fingerprint(device: str, packages: Sequence[str] = ()) -> Environment:
    """Return versions, BLAS, switches, our own source, and the CPU's model and flags or the GPU and its driver.

    packages  whose versions count, too; an empty text for one that is not installed
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "blas": _blas(),
        "mkl_cbwr": os.environ.get("MKL_CBWR", ""),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "switches": _switches(),
        "source": _source_digest(),
        "commit": _commit(),
        "device": device,
    } | {name: _version(name) for name in packages}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        gpu = {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}", "driver": _driver()}
        return Environment(
            found | gpu | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
        )
    return Environment(found | _processor())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _blas() -> str:
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    return "; ".join(line for line in lines if line.startswith(("Intel(R) oneAPI Math", "Intel(R) MKL", "OpenBLAS")))


def _switches() -> dict[str, Any]:
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
    }


@cache
def _source_digest() -> str:
    """Return the digest of the code that decides numbers: the rooms `jobs` and `workers`."""
    digest = hashlib.sha256()
    for room in ("jobs", "workers"):
        for path in sorted((_ROOT / room).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _commit() -> str:
    """Return the git commit that this package was checked out from, or an empty text where it was not."""
    command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.exists() else ""


def _processor() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {"cpu": platform.processor(), "flags": ""}
    fields = dict(line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = " ".join(sorted(values.get("flags", values.get("Features", "")).split()))
    return {"cpu": values.get("model name", ""), "flags": hashlib.sha256(flags.encode()).hexdigest()[:16]}
