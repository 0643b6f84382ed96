"""Every switch of determinism, and the fingerprint of what a result depends on beside the spec.

The number of threads is not part of the fingerprint: weights do not depend on it (powers of two; see
`models/family.py`).
"""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch


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


def fingerprint(device: str) -> dict[str, Any]:
    """Return what the numbers depend on: versions, and the CPU's model and flags or the GPU and its driver."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",  # type: ignore[no-untyped-call]
        "mkl_cbwr": os.environ.get("MKL_CBWR", ""),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "device": device,
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return found | {"gpu": properties.name, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return found | _processor()


def _processor() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {"cpu": platform.processor(), "flags": ""}
    fields = dict(line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = " ".join(sorted(values.get("flags", values.get("Features", "")).split()))
    return {"cpu": values.get("model name", ""), "flags": hashlib.sha256(flags.encode()).hexdigest()[:16]}
