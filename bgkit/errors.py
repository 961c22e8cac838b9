"""The one error family of the kit.

Every error that a user can cause is a :class:`BgkitError`. Its message says in one or two sentences
what was wrong, where, and what to do. The command line prints it and exits with status 2.
"""


class BgkitError(Exception):
    """An error that the user can fix; its message says what was wrong, where, and what to do."""


def reason_of(error: BaseException) -> str:
    """First line of a foreign error's message, without full stop; its type if it says nothing.

    >>> reason_of(ValueError("no route.\\nTry again.")), reason_of(KeyError())
    ('no route', 'KeyError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


class StoppedError(BgkitError):
    """A run was stopped by Ctrl-C or SIGTERM; the same command resumes it."""
