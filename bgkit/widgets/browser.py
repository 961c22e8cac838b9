"""Completions to read: those nearest to the threshold, and a browser of several policies'."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import HTML

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.results import Results, frame_and_tau, frames_of
from bgkit.figures.completions import completions_html, completions_table
from bgkit.testbed.oracle import HARMFUL_ABOVE
from bgkit.widgets import views

PER_PAGE = 6
#: choice -> mask of one policy's samples
CHOICES = {
    "all": lambda s: np.ones(len(s), dtype=bool),
    "shown": lambda s: ~s["filtered"],
    "filtered": lambda s: s["filtered"],
    "false positives": lambda s: s["filtered"] & (s["harm"] <= HARMFUL_ABOVE),
    "false negatives": lambda s: ~s["filtered"] & (s["harm"] > HARMFUL_ABOVE),
    "near the boundary": lambda s: s["near"],
}


def nearest(
    results: Results, tau: float | None = None, n: int = 4, *, by_kind: bool = False
) -> HTML:
    """A table of the ``n`` completions with t nearest to tau, or ``n`` of each kind of prompt.

    ``results`` is a samples table, or a run (whose tau is the default).
    """
    samples, tau = frame_and_tau(results, tau)
    checks.samples(samples, columns=("t", "harm", "kind", "prompt", "response"))
    order = np.argsort((samples["t"] - tau).abs().to_numpy(), kind="stable")
    ranked = samples.iloc[order]
    rows = ranked.groupby("kind", sort=False, dropna=False).head(n) if by_kind else ranked.head(n)
    return HTML(completions_html(rows, tau))


def matching_rows(samples: pd.DataFrame, kind: str, choice: str) -> np.ndarray:
    """Row numbers of one policy's samples of a kind of prompt (or 'all') and of a choice.

    ``choice`` is one of :data:`CHOICES`. Responses with unknown truth count as neither false
    positives nor false negatives.
    """
    mask = np.array(CHOICES[choice](samples), dtype=bool)
    return np.flatnonzero(mask & ((samples["kind"] == kind) | (kind == "all")).to_numpy())


def browse(results: Results, choice: str = "all") -> widgets.VBox:
    """Display a paged table of completions with filters for kind, policy and verdict.

    ``results`` are runs, or samples by policy, on the same prompts in the same order. The filter
    applies to one policy ("of"); the table shows the responses of all policies to those prompts:
    "false negatives of base" shows what became of base's errors. Without a kernel the first page is
    shown. Raises BgkitError if the prompts differ or ``choice`` is unknown.
    """
    if choice not in CHOICES:
        raise BgkitError(f"There is no choice {choice!r}; take one of {', '.join(CHOICES)}.")
    samples = frames_of(results)
    prompts = [frame["prompt"].tolist() for frame in samples.values()]
    if any(other != prompts[0] for other in prompts):
        raise BgkitError(
            "The policies' samples are of different prompts; evaluate the runs on the same prompts."
        )
    kinds = ["all", *pd.unique(next(iter(samples.values()))["kind"])]
    verdict = widgets.Dropdown(options=list(CHOICES), value=choice, description="show")
    policy = widgets.Dropdown(options=list(samples), description="of")
    kind = widgets.Dropdown(options=kinds, description="prompts")
    page = widgets.BoundedIntText(1, min=1, max=1, description="page")
    count, place = widgets.HTML(), widgets.Output()

    def current() -> HTML:
        rows = matching_rows(samples[policy.value], kind.value, verdict.value)
        page.max = max(1, -(-len(rows) // PER_PAGE))
        count.value = f"{len(rows)} of {len(prompts[0])} prompts"
        start = (page.value - 1) * PER_PAGE
        return HTML(completions_table(samples, rows[start : start + PER_PAGE]))

    def refilter(_: object) -> None:
        if page.value == 1:
            views.draw(place, current())
        else:
            page.value = 1  # which draws

    for control in (verdict, policy, kind):
        control.observe(refilter, "value")
    page.observe(lambda _: views.draw(place, current()), "value")
    bar = widgets.HBox([verdict, policy, kind, page], layout=views.WRAPPED)
    box = widgets.VBox([bar, count, place])
    views.show(box, current())
    return box
