"""Stress tests of trained pairs: a policy under a deployment that it was not trained for.

Every test is a function of contenders (base and the policies of runs), a guard (an object with
``score``) and a judge (if the prompts' truth is unknown). It returns a table with one row per
response (or attempt) and the columns ``design`` (a contender's name, or ``base``), ``seed``, and
the test's own axis (``guard``, ``tau``, ``shift``, ``budget``, ...).
:func:`bgkit.evaluation.metrics.summary` joins rows into means with intervals,
:func:`bgkit.evaluation.metrics.gains` compares them with base. Tests that need no new responses are
in :mod:`bgkit.stress.deployments`, which compares designs as frontiers.
"""
