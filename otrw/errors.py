"""The exceptions that a command turns into one line: what the user can mend, what broke around a run, and Ctrl-C."""

import errno
import signal
from pathlib import Path

MOST_SHOWN = 160


class UserError(ValueError):
    """Bad input. The message is one line: what, its value, the rule, the remedy. Scripts print it and exit with 2."""


class NonFiniteError(RuntimeError):
    """The loss or the weights are not finite any more; the last checkpoint is intact. Scripts print it and exit with 1."""


class RunEndedError(RuntimeError):
    """Something around a run broke: a full disk, a process or a network that is gone. It can go on; scripts exit with 1."""

    folder: Path | None = None
    """Of the run; the script makes the command that goes on from it."""
    command: str = ""
    """The whole command, where resuming the folder is not all there is to do."""


STORAGE = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)
"""Errors of a disk that is full, read-only, broken or gone, as against those of a program."""


def storage_problem(error: OSError) -> str | None:
    """One line on a disk that does not take or give what it should; None where the error is of another kind."""
    if error.errno not in STORAGE:
        return None
    return f"{error.filename or 'a file'} cannot be written or read ({error.strerror}); nothing is left half-written"


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C, or another signal that ends a program, in a run that can go on."""

    def __init__(self, folder: Path | None = None, command: str = "", signal_number: int | None = None) -> None:
        """Say how to go on.

        Args:
            folder: of the run; the script makes the command from it.
            command: the whole command, where resuming the folder is not all there is to do.
            signal_number: what asked for the end; None is Ctrl-C.
        """
        super().__init__()
        self.folder = folder
        self.command = command
        self.signal = signal.SIGINT if signal_number is None else signal.Signals(signal_number)


def check(condition: bool, key: str, value: object, rule: str, remedy: str = "") -> None:
    """Raise ``UserError("<key> must <rule>, got <value>; <remedy>")`` unless the condition holds."""
    if not condition:
        raise UserError(f"{key} must {rule}, got {shown(value)}" + (f"; {remedy}" if remedy else ""))


def shown(value: object) -> str:
    """A value as a message shows it: its repr, on one line of at most `MOST_SHOWN` characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 20]}... ({len(text)} characters)"


def first_line(error: Exception) -> str:
    """What another library says went wrong, as far as it fits into a message."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
