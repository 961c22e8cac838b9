"""Interactive views: plain ipywidgets around ``go.Figure``, a module per kind of view.

Each function displays its view in a notebook and returns it. Views work in JupyterLab, VS Code and
Colab (figures are drawn into ``Output``, without FigureWidget), by mouse and keyboard, and leave a
static view for readers without a kernel.
"""

from bgkit.figures.completions import completions_html as completions_html
from bgkit.widgets.browser import browse as browse
from bgkit.widgets.browser import nearest as nearest
from bgkit.widgets.controlled_figures import ablation as ablation
from bgkit.widgets.controlled_figures import measured_risk as measured_risk
from bgkit.widgets.controlled_figures import risk as risk
from bgkit.widgets.dashboard import train as train
from bgkit.widgets.thresholds import explore as explore
