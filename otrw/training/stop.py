"""Signals that ask a run to end: it ends between two steps, on every process at the same one, with a checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from otrw import distributed

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; kill, torchrun, Kubernetes and Docker; a terminal that is gone; SLURM's warning before the time is up."""
STEPS_BETWEEN_LOOKS = 4
"""Several processes compare notes so often; one process alone looks after every step."""
LAUNCHERS = ("/accelerate", "/accelerate-launch", "/torchrun", ".launch", "distributed.run")
"""How one of the first words of their command lines ends, as scripts or after python -m."""


class StopRequest:
    """Whether the user, the system or the launcher's end asks the run to end."""

    def __init__(self) -> None:
        """No request, and no signal is listened to."""
        self.signal: signal.Signals | None = None
        """What was heard, on this process or, once agreed on, on another one."""
        self._is_training = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Hear `SIGNALS` until the block ends, but for those that are ignored, as nohup has it. Main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self._hear)
            _end_with_launcher()
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def while_training(self) -> Iterator[None]:
        """In this block a signal waits for `is_asked`; elsewhere, and at the second Ctrl-C, it ends the run at once."""
        self._is_training = True
        try:
            yield
        finally:
            self._is_training = False

    def is_asked(self, num_steps: int, device: torch.device) -> bool:
        """Whether to end now: the same answer on every process, which all call it after the same step.

        Args:
            num_steps: steps done in the epoch.
            device: of the process group's tensors.
        """
        if distributed.world_size() > 1 and num_steps % STEPS_BETWEEN_LOOKS == 0:
            heard = torch.tensor(self.signal or 0, device=device)
            self._agree(int(torch.stack(distributed.all_gather(heard)).max()))
        elif distributed.world_size() > 1:
            return False
        return self.signal is not None

    def _agree(self, number: int) -> None:
        if number:
            self.signal = signal.Signals(number)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        is_impatient = number == signal.SIGINT and self.signal == signal.SIGINT
        self.signal = self.signal or signal.Signals(number)
        if not self._is_training or is_impatient:
            raise KeyboardInterrupt


def _end_with_launcher() -> None:
    """Let Linux send SIGTERM when the launcher is killed: its processes would train to the end with nobody to watch them."""
    if sys.platform != "linux":
        return
    launcher = os.getppid()
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{launcher}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if not any(f"/{word}".endswith(LAUNCHERS) for word in words[:4]):
            return  # a shell, say, which may end before the run that it started
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)
