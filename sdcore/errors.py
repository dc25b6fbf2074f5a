"""The one exception for whatever the user can mend."""


class InputError(ValueError):
    """Bad input. The message is one line: what was wrong, what is allowed, what to do.

    The command line prints it to stderr and exits with status 2.
    """
