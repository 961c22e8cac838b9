"""The command line: :mod:`bgkit.cli.main`, and one module for each command.

A command's module has its help as the first line of its docstring, ``add_to(command)``, which adds
its options to a parser, and ``run(arguments)``, which returns an exit status (None: 0). What is
slow to import is imported in ``run``, so that ``--help`` is quick.
"""
