"""What every notebook's set-up line does, and running a notebook with checked parameters.

``start()`` makes a notebook quiet and its errors readable: a :class:`~bgkit.errors.BgkitError` is
shown as its sentence, without the stack of the library's internals. ``run_notebook`` is papermill
with the parameters checked against the notebook's own parameters cell before anything starts
(papermill itself only warns).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bgkit import environment
from bgkit.errors import BgkitError
from bgkit.progress import phase, plain
from bgkit.sweeps import parameters as cells
from bgkit.sweeps.parameters import Parameters

# imported where they are used: start() is the first thing in every notebook, and needs neither
if TYPE_CHECKING:
    import nbformat

#: Where a notebook installs the kit from if it is not there: a git address, or a wheel's path. No
#: copy is published; who holds one names it here, then every notebook has it (tools/publish.py).
SOURCE = ""
#: The first code cell of every notebook: it stands alone, as bgkit may not be there yet.
SET_UP = f"""\
# Where bgkit is installed, this does nothing. Elsewhere (on Colab; before any other import) it
# installs SOURCE: a copy of bgkit that you trust, as a git address or a wheel. None is published.
SOURCE = "{SOURCE}"  # such as "git+https://HOST/YOU/bgkit" or "bgkit-0.1.0-py3-none-any.whl"

import importlib.util
import subprocess
import sys

if importlib.util.find_spec("bgkit") is None:
    if not SOURCE:
        sys.exit("bgkit is not installed: set SOURCE above to your copy's git address or wheel.")
    if subprocess.call([sys.executable, "-m", "pip", "install", "-q", SOURCE]):
        sys.exit(f"pip could not install SOURCE ({{SOURCE}}); its reason stands above.")"""


def start(threads: int = 0) -> None:
    """Set up a notebook: quiet libraries, pinned CPU threads, errors as sentences.

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
    lines = [plain(f"{kind.__name__}: {error}")]
    shell._showtraceback(kind, error, lines)
    return lines


def read_notebook(notebook: str | Path) -> nbformat.NotebookNode:
    """A notebook's content; raises BgkitError if there is none, or it is not readable."""
    import nbformat

    path = Path(notebook)
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise BgkitError(f"There is no notebook {path}; check the path.") from error
    except Exception as error:  # nbformat raises what its JSON and schema readers raise
        raise BgkitError(f"{path} is not a readable notebook: {error}") from error


def parameters_cell(book: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The cell of a notebook that is tagged ``parameters``; raises BgkitError if it is not one."""
    found = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    if not found or found[0].cell_type != "code":
        raise BgkitError(f"The notebook {name} has no cell tagged 'parameters'; tag one.")
    if len(found) > 1:
        raise BgkitError(
            f"The notebook {name} has {len(found)} cells tagged 'parameters', of which papermill "
            "sets the first and the others undo it; tag one."
        )
    return found[0]


def parameters_of(notebook: str | Path) -> Parameters:
    """What can be set in a notebook: names, their defaults and types.

    Raises BgkitError if there is no notebook, if none or several of its cells are tagged
    ``parameters``, and if that cell holds more than plain values.
    """
    path = Path(notebook)
    return cells.read(parameters_cell(read_notebook(path), str(path)).source, path.name)


def run_notebook(
    notebook: str | Path, output: str | Path, parameters: dict[str, object] | None = None
) -> Path:
    """Execute a notebook with other parameters into ``output`` and return its path.

    The kernel works in the current folder. Raises BgkitError for a wrong parameter before anything
    starts, and for a cell that fails (``output`` then holds what was done, with the error).
    """
    import papermill

    from bgkit.sweeps.kernels import KernelManager

    read_notebook(notebook)
    known = parameters_of(notebook) if parameters else None
    for name, value in (parameters or {}).items():
        known.check(name, value, Path(notebook).name)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    try:
        with phase(f"running {Path(notebook).name}"):
            papermill.execute_notebook(
                str(Path(notebook).resolve()),
                str(Path(output).resolve()),
                parameters or {},
                kernel_name="python3",
                language="python",
                progress_bar=False,
                kernel_manager_class=KernelManager,
            )
    except papermill.PapermillExecutionError as error:
        raise BgkitError(
            f"Cell {error.exec_count} of {Path(notebook).name} failed: {error.ename}: "
            f"{error.evalue}. The executed notebook is {output}."
        ) from error
    return Path(output)
