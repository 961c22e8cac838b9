"""The command line.

A command is a function of its options that returns an exit status (None: 0). It imports slow
modules itself, which keeps ``--help`` fast. Its docstring is its help; its options (see
:func:`bgkit.cli.options.add`) are in the same module under its name in capitals.
"""
