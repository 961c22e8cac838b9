"""Sweeps: grids of notebook runs by papermill, their index, and the ablation's tables."""
