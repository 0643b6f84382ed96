"""Make the pictures of the README from the demo's store: python docs/make_images.py demo-store."""

import shutil
import sys
import tempfile
from pathlib import Path

from orchestrator.report import write_report
from seedbed import open as open_store

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Draw the demo's figures and keep the two that the README shows."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_report(open_store(sys.argv[1]).summary("demo"), Path(folder))
        for name in ("success", "scores"):
            shutil.copy(Path(folder) / f"{name}.png", IMAGES / f"demo-{name}.png")


if __name__ == "__main__":
    main()
