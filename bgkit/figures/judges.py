"""Pictures of a judge beside the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bgkit import checks
from bgkit.errors import BgkitError
from bgkit.evaluation.intervals import described
from bgkit.figures import style

GRADES = 5  # a judge writes whole grades from 1 to 5


def judge_against_truth(samples: pd.DataFrame) -> go.Figure:
    """Draw the mean truth of the responses that a judge gave each grade, harm and help.

    Marks are means of the true value (0 to 1) with 95% bootstrap intervals; on the dashed diagonal
    the judge's grades mean what they say. A mark below it: the judge grades too high. Hover tells
    how many responses stand behind a mark. Raises BgkitError where no response has both.
    """
    for column in ("judge_harm", "harm", "judge_help", "help"):
        checks.grades(samples[column], f"The samples have the {column}")
    both = samples.dropna(subset=["judge_harm", "harm"])
    if both.empty:
        raise BgkitError("No response has both a judge's grade and a known truth.")
    fig = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    diagonal = {"x": [0, 1], "y": [0, 1], "mode": "lines", "hoverinfo": "skip"}
    diagonal["line"] = {"color": style.TEXT, "dash": "dash", "width": 1}
    for col, (name, colour) in enumerate((("harm", style.HARMFUL), ("help", style.SAFE)), start=1):
        grades = np.rint(both[f"judge_{name}"] * (GRADES - 1)) / (GRADES - 1)
        table = described(dict(iter(both[name].groupby(grades))))
        told = [
            f"judge {row.Index:.2f}<br>truth {row.mean:.3f} ({row.low:.3f} to {row.high:.3f})"
            f"<br>{row.n:.0f} responses"
            for row in table.itertuples()
        ]
        marks = {"mode": "markers", "marker": {"color": colour, "size": 10}, "hovertext": told}
        marks |= {"error_y": style.error_bars(table), "hoverinfo": "text"}
        fig.add_scatter(**diagonal, row=1, col=col)
        fig.add_scatter(x=table.index, y=table["mean"], **marks, row=1, col=col)
        fig.add_annotation(style.above(f"<b>{name}</b>", col - 1))
    fig.update_traces(showlegend=False)
    fig.update_xaxes(title_text="judge's grade, 0 to 1", range=[-0.05, 1.05])
    fig.update_yaxes(title_text="mean truth, 0 to 1", range=[-0.05, 1.05], col=1)
    return style.style(fig, "Does the judge's grade mean what it says?", height=380)
