"""How one pack trains; knows nothing of other packs and of no cluster."""

import os

# MKL reads this once, at its first product. Without it a sum's order depends on where in memory an array lies
# (seen: attention with 1 and with 2 threads); the fastest code of the processor stays in use.
os.environ.setdefault("MKL_CBWR", "AUTO")
