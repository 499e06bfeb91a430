"""The one kind of error that a user is meant to read."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: the file or key, what was found, what was expected, how to mend it.
    ``run.py`` prints it as the last line and exits with code 1, without a traceback.
    """
