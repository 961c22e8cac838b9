"""Prompts: sets, files, logs, splits and composed benchmarks, as tables."""
