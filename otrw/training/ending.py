"""How a run ends before its time: what broke around it becomes one line, and the folder that it goes on from is known."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from otrw import distributed
from otrw.errors import RunEndedError, UserInterrupt, storage_problem
from otrw.training.stop import StopRequest


@contextlib.contextmanager
def told(folder: Path | None, stop: StopRequest) -> Iterator[None]:
    """Turn a signal, a disk's error and a lost process, in this block, into exceptions that name the run's folder.

    Args:
        folder: of the run; None where there is none yet.
        stop: knows which signal was heard.

    Raises:
        UserInterrupt: for Ctrl-C and other signals.
        RunEndedError: for a disk that is full or read-only, and for a process that is gone or silent.
    """
    try:
        yield
    except UserInterrupt as interrupt:
        interrupt.folder = interrupt.folder or folder
        raise
    except KeyboardInterrupt:
        raise UserInterrupt(folder, signal_number=stop.signal) from None
    except OSError as error:
        _raise_with(folder, storage_problem(error))
        raise
    except RuntimeError as error:
        if not isinstance(error, RunEndedError):
            problem = distributed.lost_process(error)
            if problem is not None and stop.signal is not None:  # the other one heard the signal too, and left at once
                raise UserInterrupt(folder, signal_number=stop.signal) from None
            _raise_with(folder, problem)
        raise


def _raise_with(folder: Path | None, problem: str | None) -> None:
    if problem is not None:
        ended = RunEndedError(problem)
        ended.folder = folder
        raise ended from None
