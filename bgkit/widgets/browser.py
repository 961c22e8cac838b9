"""Completions of several policies side by side, with filters: what did training change?"""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import HTML

from bgkit.errors import BgkitError
from bgkit.evaluation.results import Results, frames_of
from bgkit.testbed.oracle import HARMFUL_ABOVE
from bgkit.widgets.text import NO_MATH, folded, safe
from bgkit.widgets.views import draw, show

PER_PAGE = 6
#: what to look at -> which rows of one policy's samples
CHOICES = {
    "all": lambda s: np.ones(len(s), dtype=bool),
    "shown": lambda s: ~s["filtered"],
    "filtered": lambda s: s["filtered"],
    "false positives": lambda s: s["filtered"] & (s["harm"] <= HARMFUL_ABOVE),
    "false negatives": lambda s: ~s["filtered"] & (s["harm"] > HARMFUL_ABOVE),
    "near the boundary": lambda s: s["near"],
}
CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"


def matching(samples: pd.DataFrame, kind: str, choice: str) -> np.ndarray:
    """Row numbers of one policy's samples of a kind of prompt ('all') and of a choice.

    ``choice`` is a key of :data:`CHOICES`. Where the truth is not known, no response counts as a
    false positive or negative.
    """
    if choice not in CHOICES:
        raise BgkitError(f"There is no choice {choice!r}; take one of {', '.join(CHOICES)}.")
    mask = np.array(CHOICES[choice](samples), dtype=bool)
    if kind != "all":
        mask &= (samples["kind"] == kind).to_numpy()
    return np.flatnonzero(mask)


def _cell(row: pd.Series) -> str:
    verdict = "filtered" if row["filtered"] else "shown"
    truth = "truth unknown"
    if not np.isnan(row["harm"]):
        wrong = row["filtered"] != (row["harm"] > HARMFUL_ABOVE)
        known = "" if np.isnan(row["help"]) else f", help {row['help']:.2f}"
        truth = f"harm {row['harm']:.2f}{known}{' ✗' if wrong else ''}"
    facts = f"<small>t {row['t']:.3f} · {verdict} · {truth}</small>"
    return f"<td style='{CELL}'>{folded(row['response'])}<br>{facts}</td>"


def completions_table(samples: Mapping[str, pd.DataFrame], rows: np.ndarray) -> HTML:
    """An HTML table: the prompt, and what each policy answered; ✗ marks the filter's errors.

    All text is escaped and control characters are made visible.
    """
    first = next(iter(samples.values()))
    heads = "".join(f"<th style='{CELL}'>{safe(name)}</th>" for name in samples)
    lines = [
        f"<tr><td style='{CELL}'>{folded(first['prompt'].iloc[i])}<br>"
        f"<small>{safe(first['kind'].iloc[i])}</small></td>"
        + "".join(_cell(frame.iloc[i]) for frame in samples.values())
        + "</tr>"
        for i in rows
    ]
    head = f"<tr><th style='{CELL}'>prompt</th>{heads}</tr>"
    look = f"class='{NO_MATH}' style='width:100%;table-layout:fixed'"
    return HTML(f"<table {look}>{head}{''.join(lines)}</table>")


def _check(samples: Mapping[str, pd.DataFrame]) -> None:
    if not samples:
        raise BgkitError("There are no completions to show: no policy was given.")
    prompts = [frame["prompt"].tolist() for frame in samples.values()]
    if any(other != prompts[0] for other in prompts[1:]):
        raise BgkitError(
            "The policies' samples are of different prompts, so they can not be shown side by "
            "side; evaluate the runs on the same prompts."
        )


class CompletionBrowser:
    """Filters for kind, policy and verdict above a paged table of completions.

    The filter looks at one policy ("of"); the table shows the same prompts' answers by all of
    them, so that "false negatives of base" tells what became of base's errors. ``view`` is the
    widget; :meth:`rows` the row numbers on the page shown. ``drawn`` False leaves the table out
    until a control is touched, for a view that stands above its static table.
    """

    def __init__(
        self, samples: Mapping[str, pd.DataFrame], choice: str = "all", drawn: bool = True
    ) -> None:
        _check(samples)
        self.samples = dict(samples)
        names, kinds = list(samples), list(pd.unique(next(iter(samples.values()))["kind"]))
        self.choice = widgets.Dropdown(options=list(CHOICES), value=choice, description="show")
        self.policy = widgets.Dropdown(options=names, value=names[0], description="of")
        self.kind = widgets.Dropdown(options=["all", *kinds], description="prompts")
        self.page = widgets.BoundedIntText(1, min=1, max=1, description="page")
        self.count, self.table = widgets.HTML(), widgets.Output()
        for control in (self.choice, self.policy, self.kind):
            control.observe(self._refilter, "value")
        self.page.observe(self._redraw, "value")
        bar = widgets.HBox([self.choice, self.policy, self.kind, self.page])
        bar.layout.flex_flow = "row wrap"
        self.view = widgets.VBox([bar, self.count, self.table])
        self._count()
        if drawn:
            self._redraw()

    def _found(self) -> np.ndarray:
        return matching(self.samples[self.policy.value], self.kind.value, self.choice.value)

    def rows(self) -> np.ndarray:
        """Row numbers of the completions on the page shown."""
        start = (self.page.value - 1) * PER_PAGE
        return self._found()[start : start + PER_PAGE]

    def _count(self) -> None:
        found = len(self._found())
        self.page.max = max(1, -(-found // PER_PAGE))
        self.count.value = f"{found} of {len(next(iter(self.samples.values())))} prompts"

    def _refilter(self, _: object) -> None:
        self._count()
        self.page.value = 1
        self._redraw()

    def _redraw(self, _: object = None) -> None:
        draw(self.table, completions_table(self.samples, self.rows()))


def browse(results: Results, choice: str = "all") -> CompletionBrowser:
    """Show a browser of completions; without a kernel its first page stays as a table.

    ``results`` are runs, or samples by policy, on the same prompts in the same order. Raises
    BgkitError if the prompts differ or ``choice`` is unknown.
    """
    if choice not in CHOICES:
        raise BgkitError(f"There is no choice {choice!r}; take one of {', '.join(CHOICES)}.")
    browser = CompletionBrowser(frames_of(results), choice, drawn=False)
    show(browser.view, completions_table(browser.samples, browser.rows()))
    return browser
