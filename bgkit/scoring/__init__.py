"""Scoring: guards give t in [0, 1], utilities give u, from whatever model they are."""
