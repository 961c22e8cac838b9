"""The set-up line of every notebook; importing this module loads neither torch nor plotly."""

from __future__ import annotations

import pandas as pd

from bgkit import environment
from bgkit.errors import BgkitError
from bgkit.progress import phase
from bgkit.texts import clean_text


def start(threads: int = 0) -> None:
    """Set up a notebook: quiet libraries, fixed CPU threads, BgkitErrors without a stack trace.

    ``threads`` 0 takes all cores, at most four. Prints the device.
    """
    from IPython import get_ipython

    environment.prepare()  # before torch is loaded
    with phase("loading PyTorch"):
        from bgkit.models import devices

    pd.options.display.html.use_mathjax = False  # texts in tables hold no formulas
    pd.options.display.max_colwidth = None  # and are shown whole
    if shell := get_ipython():
        shell.set_custom_exc((BgkitError,), _show_sentence)
    count, place = devices.pin_threads(threads), devices.pick_device()
    print(f"bgkit is ready: {place.type}, {count} CPU thread{'s' if count > 1 else ''}.")


def _show_sentence(shell, kind, error, traceback, tb_offset=None) -> list[str]:
    """IPython's handler for BgkitErrors; the cell still counts as failed."""
    lines = [clean_text(f"{kind.__name__}: {error}")]
    shell._showtraceback(kind, error, lines)
    return lines
