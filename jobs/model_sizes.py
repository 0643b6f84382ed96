"""Named sizes of models: what `size: pythia-14m` in a study file stands for.

Source: Biderman et al. 2023, table 1, and the README of EleutherAI/pythia; 14m and 31m: van der Wal et al. 2025. The
names count the parameters with embeddings of the original vocabulary of 50,304 tokens; a task's own is smaller.
"""

_PYTHIA = {
    "pythia-14m": (6, 128, 4),
    "pythia-31m": (6, 256, 8),
    "pythia-70m": (6, 512, 8),
    "pythia-160m": (12, 768, 12),
    "pythia-410m": (24, 1024, 16),
    "pythia-1b": (16, 2048, 8),
}

SIZES: dict[str, dict[str, int]] = {
    name: {"layers": layers, "width": width, "heads": heads} for name, (layers, width, heads) in _PYTHIA.items()
}
