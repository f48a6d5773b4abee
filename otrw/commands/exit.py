"""From an error to one line on standard error and an exit code."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from otrw.commands.invocation import resume_command
from otrw.errors import NonFiniteError, UserError, UserInterrupt


def exit_with_message(action: Callable[[], object]) -> None:
    """Run a command. Errors a user can mend: one line on standard error, once for all processes, exit code 2.

    Other expected failures exit with 1 (training diverged) and 128 plus the signal's number; bugs keep their traceback.

    Args:
        action: the command, without arguments.

    Raises:
        SystemExit: with that code, after the message.
    """
    try:
        action()
    except UserError as error:
        _stop(f"error: {error}", 2)
    except UserInterrupt as interrupt:
        command = interrupt.command or (resume_command(interrupt.folder) if interrupt.folder else "")
        by = "" if interrupt.signal == signal.SIGINT else f" by {interrupt.signal.name}"
        _stop(f"interrupted{by}" + (f"; go on with: {command}" if command else ""), 128 + interrupt.signal)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except NonFiniteError as error:
        _stop(f"error: {error}", 1)


def _stop(message: str, code: int) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(message, file=sys.stderr, flush=True)
        _tell_launcher(message)
    else:
        time.sleep(2)  # a launcher ends all processes when the first is gone: let the one that prints be the first
    sys.exit(code)


def _tell_launcher(message: str) -> None:
    """Leave the message where torchrun looks for it: the report that it prints below then ends with it as the cause.

    The format is that of torch.distributed.elastic.multiprocessing.errors.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}, file)
