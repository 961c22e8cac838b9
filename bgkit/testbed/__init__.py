"""The embedded testbed: a world with a computable truth, and models trained on it."""
