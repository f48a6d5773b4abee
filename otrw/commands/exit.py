"""From an error to one line on standard error and an exit code."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from otrw.commands.invocation import resume_command
from otrw.errors import NonFiniteError, RunEndedError, UserError, UserInterrupt, shown, storage_problem

CAUSE_SECONDS = 1.0
"""How long what follows from another process's end waits for that one's own words."""
NO_HOME = "determine home directory"
"""What pathlib says of ~NAME where there is no such user."""


def exit_with_message(action: Callable[[], object]) -> None:
    """Run a command. Errors a user can mend: one line on standard error, once for all processes, exit code 2.

    Other expected failures exit with 1 (training diverged, a disk is full, another process is gone) and 128 plus the
    signal's number; bugs keep their traceback.

    Args:
        action: the command, without arguments.

    Raises:
        SystemExit: with that code, after the message.
    """
    try:
        with _termination_interrupts():
            action()
    except UserError as error:
        _stop(f"error: {error}", 2)
    except UserInterrupt as interrupt:
        by = "" if interrupt.signal == signal.SIGINT else f" by {interrupt.signal.name}"
        _stop(f"interrupted{by}{_goes_on(interrupt.folder, interrupt.command)}", 128 + interrupt.signal)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except NonFiniteError as error:
        _stop(f"error: {error}", 1)
    except RunEndedError as ended:
        _stop(f"error: {ended}{_goes_on(ended.folder, ended.command)}", 1, is_consequence=True)
    except BrokenPipeError:  # whoever read the output, head say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)
    except Exception as error:
        problem = storage_problem(error) if isinstance(error, OSError) else None
        if isinstance(error, RuntimeError) and NO_HOME in str(error):
            given = next((word for word in sys.argv[1:] if "~" in word), "~")
            _stop(f"error: a path must begin with ~ or ~NAME of a user of this machine, got {shown(given)}; write it out", 2)
        if problem is not None:
            _stop(f"error: {problem}; the same command goes on when that is mended", 1)
        if _num_processes() == 1:
            raise
        _stop(traceback.format_exc(), 1)


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """A request to end by another signal than Ctrl-C cleans up as Ctrl-C does; training has its own way."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise UserInterrupt(signal_number=number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [name for name in ("SIGTERM", "SIGHUP") if in_main_thread and hasattr(signal, name)]
    numbers = [number for name in taken if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _goes_on(folder: Path | None, command: str) -> str:
    command = command or (resume_command(folder) if folder else "")
    return f"; go on with: {command}" if command else ""


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _stop(message: str, code: int, *, is_consequence: bool = False) -> None:
    """Print a message once for all processes of this machine, whichever of them has it, and leave.

    Args:
        message: one line, or a traceback.
        code: of the exit.
        is_consequence: of something that another process may have said a word about, which comes first.
    """
    if _num_processes() > 1:
        # the launcher ends all processes when the first is gone; this one has something to say
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if is_consequence:
            time.sleep(CAUSE_SECONDS)
    if _is_first_to_say(message):
        with contextlib.suppress(OSError):  # a log on the disk that is full
            print(message, file=sys.stderr, flush=True)
        _tell_launcher(message)
    else:
        time.sleep(2)  # let the one that prints be the first to be gone, and the launcher's report end with its message
    if _num_processes() > 1 and "torch" in sys.modules:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # taking a process group apart whose other end is gone may hang or abort
    sys.exit(code)


def _is_first_to_say(message: str) -> bool:
    """Whether no other process of this machine has this message; torchrun gives them a folder that they share."""
    shared = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if _num_processes() == 1 or not shared:
        return int(os.environ.get("RANK", "0")) == 0
    said = Path(shared).parents[1] / f"said-{hashlib.sha256(message.encode()).hexdigest()[:16]}"
    try:
        said.open("x").close()
    except FileExistsError:
        return False
    except OSError:
        return int(os.environ.get("RANK", "0")) == 0
    return True


def _tell_launcher(message: str) -> None:
    """Leave the message where torchrun looks for it: the report that it prints below then ends with it as the cause.

    The format is that of torch.distributed.elastic.multiprocessing.errors.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}, file)
