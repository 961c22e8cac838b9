"""The one error family of the kit.

Every error that a user can cause is a :class:`BgkitError` whose text is one sentence (or two) that
says what was wrong, where, and what to do. The command line prints it and exits with status 2.
"""


class BgkitError(Exception):
    """An error that the user can mend; its text says what was wrong, where, and what to do."""


class StoppedError(BgkitError):
    """A run was stopped by Ctrl-C or SIGTERM and can be resumed by the same command."""
