"""Evaluation: samples, metrics, intervals, calibration, thresholds, judges."""
