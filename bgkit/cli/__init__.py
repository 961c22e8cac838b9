"""The command line.

A command is a function of its options: it returns an exit status (None: 0), imports what is slow,
so that ``--help`` is quick, and its docstring is its help. By its name in capitals its options (see
:func:`bgkit.cli.options.add`) stand beside it.
"""
