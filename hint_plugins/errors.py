"""What every error of this package is: a sentence for the user, printed without a traceback."""


class HintError(Exception):
    """Base of the errors that say what was wrong, where, and what to do."""


class InputError(HintError, ValueError):
    """Bad input from the user: the command ends with exit status 2."""
