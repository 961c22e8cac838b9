"""Draw the README's picture: help against harm, and against mass near the boundary, as frontiers.

    python benchmarks/picture.py

Needs Playwright for Python and Chromium.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bgkit import figures
from bgkit.evaluation import settings
from bgkit.runs import write_atomically
from bgkit.sweeps import collection

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from publish import stills  # noqa: E402

DRAWN = "base boundary compound filter_avoidance filter_avoidance_soft".split()
TARGET = ROOT / "data" / "reference" / "frontiers.png"


def main() -> None:
    """Draw four designs that have a strength, and base."""
    table = settings.default_rows(collection.load_table(), free=["strength"])
    table = table[table["design"].isin(DRAWN)]
    figure = figures.trade_off(table, where={"kind": "all"}, x=["system_harm", "near_boundary"])
    (picture,) = stills([json.loads(figure.to_json())])
    write_atomically(TARGET, lambda file: file.write_bytes(picture))


if __name__ == "__main__":
    main()
