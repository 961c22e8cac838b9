"""The one error family of the kit.

Every error that a user can cause is a :class:`BgkitError`. Its message says in one or two sentences
what was wrong, where, and what to do. The command line prints it and exits with status 2.
"""


class BgkitError(Exception):
    """An error that the user can fix; its message says what was wrong, where, and what to do."""


class StoppedError(BgkitError):
    """A run was stopped by Ctrl-C or SIGTERM; the same command resumes it."""
