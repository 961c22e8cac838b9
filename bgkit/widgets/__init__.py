"""Interactive views: plain ipywidgets around ``go.Figure``, one module per view.

Each function displays its view in a notebook and returns it. Views work in JupyterLab, VS Code and
Colab (figures are drawn into ``Output``, without FigureWidget), by mouse and keyboard, and leave a
static view for readers without a kernel.
"""

from bgkit.figures.completions import completions_html as completions_html
from bgkit.widgets.ablations import ablation as ablation
from bgkit.widgets.browser import browse as browse
from bgkit.widgets.costs import measured_risk as measured_risk
from bgkit.widgets.costs import risk as risk
from bgkit.widgets.dashboard import train as train
from bgkit.widgets.thresholds import explore as explore
