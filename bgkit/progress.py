"""One line that says what is being done, how it goes, and how long it will still take."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

#: column of the metrics -> how it is called on the line
SHOWN = {
    "reward": "reward",
    "filter_rate": "filtered",
    "near_boundary": "near",
    "kl": "KL/token",  # the trainer's is a mean over tokens; an evaluation's is over responses
    "no_spread": "no spread",
}


class _LogFile:
    """Standard error as a log: a new line where a terminal would overwrite the old one."""

    def write(self, text: str) -> None:
        sys.stderr.write(text.replace("\r", "\n"))

    def flush(self) -> None:
        sys.stderr.flush()


class Progress:
    """A tqdm line over the steps of a run; on a log file, a line every few seconds.

    Use it as a context manager around the work; ``start`` sets the step that a resumed run begins
    at, ``update`` the newest step and its values.
    """

    def __init__(self, total: int, what: str, shown: Mapping[str, str] = SHOWN) -> None:
        self.total, self.what, self.shown = total, what, shown
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        live = sys.stderr.isatty()
        self._bar = tqdm(
            total=self.total,
            desc=self.what,
            file=sys.stderr if live else _LogFile(),
            dynamic_ncols=live,
            mininterval=0.2 if live else 10,
            maxinterval=30,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed} gone, {remaining} left{postfix}]",
        )
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, step: int) -> None:
        """Begin at a step."""
        if self._bar is not None and step:
            self._bar.initial = self._bar.n = step

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Show a step and its values."""
        if self._bar is None:
            return
        parts = {name: f"{values[key]:.2f}" for key, name in self.shown.items() if key in values}
        self._bar.set_postfix(parts, refresh=False)
        self._bar.update(step - self._bar.n)


class Silent(Progress):
    """Shows nothing: for runs that share a terminal with others."""

    def __init__(self) -> None:
        super().__init__(0, "")

    def __enter__(self) -> Silent:
        return self
