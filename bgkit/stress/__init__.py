"""Stress tests of trained pairs: a policy under a deployment that it was not trained for.

Every test is a function that takes any runs, any guard (a name or an object with ``score``) and any
judge (where the prompts' truth is not known), and returns a table with one row per response (or per
attempt), with a column ``design`` (a contender's name, ``base`` among them), ``seed``, and the
test's own axis (``guard``, ``tau``, ``shift``, ``budget``, ...).
:func:`bgkit.evaluation.metrics.summary` joins rows into means with intervals,
:func:`bgkit.evaluation.metrics.gains` compares them with base. Where no response has to be sampled,
:mod:`bgkit.sweeps.deployments` compares designs as frontiers.
"""
