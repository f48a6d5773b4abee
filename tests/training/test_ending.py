"""What a run says that another process or a signal ended."""

import signal

import pytest

from otrw import distributed
from otrw.errors import RunEndedError, UserInterrupt
from otrw.training.ending import told
from otrw.training.stop import StopRequest


@pytest.mark.parametrize("heard", [None, signal.SIGTERM])
def test_a_process_that_left_at_a_signal_both_heard_is_no_failure_of_its_own(tmp_path, monkeypatch, heard):
    """Outside training a process ends at once, and the one that waits for it loses the connection."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    stop = StopRequest()
    stop.signal = heard
    with pytest.raises((UserInterrupt, RunEndedError)) as caught, told(tmp_path, stop):
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5555")
    assert caught.value.folder == tmp_path
    if heard:
        assert caught.type is UserInterrupt
        assert caught.value.signal == heard
    else:
        assert caught.type is RunEndedError
        assert "another process has ended" in str(caught.value)


def test_an_error_of_ones_own_stays_what_it_is_whatever_was_heard(tmp_path):
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with pytest.raises(RuntimeError, match="mat1 and mat2"), told(tmp_path, stop):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
