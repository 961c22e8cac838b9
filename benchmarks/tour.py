"""The README's tour: one picture of each notebook, taken from what the notebook stores.

python benchmarks/tour.py
BGKIT_SCREENSHOTS=data/screenshots make test-browser   # 02 and 03, as JupyterLab shows them
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
#: notebook -> which of its stored pictures
PICTURES = {
    "00_quickstart": 0,
    "01_filtered_generation": 1,
    "04_evaluate": 2,
    "05_ablations": 0,
    "06_your_own_models": -1,
    "07_stress_tests": -1,
}

for name, which in PICTURES.items():
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    found = [
        output["data"]["image/png"]
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    file = ROOT / "data" / "screenshots" / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(base64.b64decode(found[which]))
    print(f"{file.relative_to(ROOT)}: picture {which} of {len(found)}")
