"""Stress tests of trained pairs: a policy under a deployment that it was not trained for.

Every test is a function that takes any runs and any guard and returns a table with one row per
response (or per attempt), with a column ``design`` (a contender's name, ``base`` among them),
``seed``, and the test's own axis (``guard``, ``tau``, ``shift``, ``budget``, ...).
:func:`bgkit.stress.contenders.summary` joins rows into means with intervals,
:mod:`bgkit.stress.scorecard` compares designs test by test.
"""
