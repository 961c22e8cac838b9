"""The embedded testbed: a world with computable ground truth, and models trained on it."""
