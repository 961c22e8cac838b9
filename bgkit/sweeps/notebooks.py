"""What every notebook's set-up line does, and running a notebook with checked parameters."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bgkit import environment
from bgkit.errors import BgkitError
from bgkit.progress import phase
from bgkit.texts import visible


def start(threads: int = 0) -> None:
    """Set up a notebook: quiet libraries, pinned CPU threads, BgkitErrors as sentences, no stack.

    ``threads`` 0 takes all cores, at most four. Prints where the work will be done.
    """
    from IPython import get_ipython

    environment.prepare()  # before torch is loaded
    with phase("loading PyTorch"):
        from bgkit.models import devices

    pd.options.display.html.use_mathjax = False  # a table of texts holds no formulas
    if shell := get_ipython():
        shell.set_custom_exc((BgkitError,), _show_sentence)
    count, place = devices.pin_threads(threads), devices.pick_device()
    print(f"bgkit is ready: {place.type}, {count} CPU thread{'s' if count > 1 else ''}.")


def _show_sentence(shell, kind, error, traceback, tb_offset=None) -> list[str]:
    """IPython's handler for our errors; the cell still counts as failed."""
    lines = [visible(f"{kind.__name__}: {error}")]
    shell._showtraceback(kind, error, lines)
    return lines


def run_notebook(
    notebook: str | Path, output: str | Path, parameters: dict[str, object] | None = None
) -> Path:
    """Execute a notebook with other parameters into ``output`` and return its path.

    The kernel works in the current folder. Raises BgkitError for a wrong parameter before anything
    starts, and for a cell that fails (``output`` then holds what was done, with the error).
    """
    import papermill

    from bgkit.sweeps import kernels
    from bgkit.sweeps.parameters import code_cells, open_notebook

    code_cells(Path(notebook))  # a missing or broken one is told
    if parameters:
        known = open_notebook(notebook)
        named = {known.name_of(name): value for name, value in parameters.items()}
        parameters = {name: known.check(name, value) for name, value in named.items()}
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    try:
        with phase(f"running {Path(notebook).name}"):
            kernels.execute(notebook, output, parameters or {})
    except papermill.PapermillExecutionError as error:
        raise BgkitError(
            f"Cell {error.exec_count} of {Path(notebook).name} failed: {error.ename}: "
            f"{error.evalue}. The executed notebook is {output}."
        ) from error
    return Path(output)
