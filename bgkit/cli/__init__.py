"""The command line: :data:`bgkit.cli.main.COMMANDS` lists the commands.

Each is a function of the parsed arguments, which returns an exit status (None: 0) and imports what
is slow, so that ``--help`` is quick; its options (see :func:`bgkit.cli.options.add`) stand beside.
"""
