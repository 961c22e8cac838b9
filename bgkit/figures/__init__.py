"""Figures: pure functions from results, samples or tables to Plotly figures, and the report.

Each takes a run, a list of runs, samples or a table of rows; its docstring says how to read it.
:mod:`bgkit.figures.style` holds their look, :mod:`bgkit.figures.report` the HTML report.
"""

from bgkit.figures.distributions import judge_against_truth as judge_against_truth
from bgkit.figures.distributions import margins as margins
from bgkit.figures.distributions import reliability as reliability
from bgkit.figures.means import by_kind as by_kind
from bgkit.figures.means import frontier as frontier
from bgkit.figures.means import trade_off as trade_off
from bgkit.figures.risk import measured_risk as measured_risk
from bgkit.figures.risk import risk_curve as risk_curve
from bgkit.figures.stress import at_equal_help as at_equal_help
from bgkit.figures.stress import attack_curves as attack_curves
from bgkit.figures.stress import by_guard as by_guard
from bgkit.figures.stress import by_shift as by_shift
from bgkit.figures.stress import drift as drift
from bgkit.figures.thresholds import margins_by_kind as margins_by_kind
from bgkit.figures.thresholds import operating_curves as operating_curves
from bgkit.figures.training import training_curves as training_curves
