"""Interactive views: ordinary ipywidgets around ``go.Figure``, one module per view.

Every view works in JupyterLab, VS Code and Colab (figures are drawn into ``Output``, no
FigureWidget), by mouse and keyboard, and leaves a static view for readers without a kernel.
"""
