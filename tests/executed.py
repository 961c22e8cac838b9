"""Execute a notebook with other parameters, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import papermill

from bgkit.errors import BgkitError
from bgkit.sweeps import kernels


def run_notebook(notebook: Path, output: Path, parameters: dict[str, object]) -> Path:
    """Execute a notebook into ``output``; raises BgkitError for a cell that fails."""
    try:
        kernels.execute(notebook, output, parameters)
    except papermill.PapermillExecutionError as error:
        raise BgkitError(f"A cell failed: {error.ename}: {error.evalue}") from error
    return output
