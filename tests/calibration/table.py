"""The cells of a run as the table that docs/statistics.md ends with.

python -m tests.calibration.table calibration.xml
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

COLUMNS = ("estimator", "design", "n", "coverage", "misses above", "below", "repetitions", "verdict")


def rows(report: Path) -> list[str]:
    """Return the rows of the table, sorted and each once, from pytest's JUnit report of a run that it made itself."""
    kept = [p.attrib["value"] for p in ElementTree.parse(report).iter("property") if p.attrib["name"] == "cell"]  # noqa: S314
    found = {}
    for estimator, design, n, *shares, repetitions, verdict in map(json.loads, kept):
        numbers = " | ".join(f"{share:.3f}".removeprefix("0") for share in shares)
        counted = f"{repetitions:,}" if repetitions else "exact"
        found[estimator, design, len(n), n] = f"| {estimator} | {design} | {n} | {numbers} | {counted} | {verdict} |"
    return [found[key] for key in sorted(found)]


if __name__ == "__main__":
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    sys.stdout.write("\n".join([*head, *(row for name in sys.argv[1:] for row in rows(Path(name))), ""]))
