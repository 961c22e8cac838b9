"""The command line: :func:`bgkit.cli.main.commands` lists the commands.

Each has its options (see :func:`bgkit.cli.options.add`) and a function of the parsed arguments,
which returns an exit status (None: 0) and imports what is slow, so that ``--help`` is quick.
"""
