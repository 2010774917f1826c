"""The exceptions that are meant for people."""


class UserError(Exception):
    """A mistake a user can mend: the command prints its one sentence and no traceback."""


class Diverged(UserError):
    """A run's loss or gradient is no longer a number."""


class InUse(UserError):
    """Another process holds the run folder."""


def is_outside_fault(error: BaseException) -> bool:
    """Has something else than the run itself ended it (a full disk, a file system that is away, another process)?

    The same command may go on later, or elsewhere.
    """
    return isinstance(error, OSError | InUse) or isinstance(error.__cause__, OSError)
