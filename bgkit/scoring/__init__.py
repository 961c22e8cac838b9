"""Scoring: guards give t in [0, 1], utilities give u, whatever model they are."""
