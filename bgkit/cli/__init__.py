"""The command line: :mod:`bgkit.cli.main`, and one module for each command.

A command's module has its help as the first line of its docstring, ``OPTIONS`` (see
:func:`bgkit.cli.options.add`), ``CONFIG`` if it takes a run's settings, and ``run(arguments)``,
which returns an exit status (None: 0) and imports what is slow, so that ``--help`` is quick.
"""
