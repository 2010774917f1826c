"""The one exception that is meant for people."""


class UserError(Exception):
    """A mistake a user can mend: the command prints its one sentence and no traceback."""
