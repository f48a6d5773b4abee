"""What several processes have to say is said once for each thing, whichever of them has it."""

import json
import os
import signal
import time

import pytest
from whole_runs import Training

from otrw.errors import RunEndedError, UserError


def both(folder, *errors):
    """Processes that end with these errors; (exit codes, lines of standard error, message left for the launcher)."""

    def raise_own(arguments):
        raise errors[int(os.environ["RANK"])]

    training = Training(folder, [], len(errors), action=raise_own)
    ended = [training.wait(rank, 60) for rank in range(len(errors))]
    left = [json.loads(path.read_text())["message"]["message"] for path in sorted(folder.rglob("error.json"))]
    return [one.code for one in ended], "".join(one.said for one in ended).splitlines(), left


def test_what_all_have_is_said_once(tmp_path):
    codes, lines, left = both(tmp_path, *[UserError("ot.epsilon must be > 0")] * 3)
    assert codes == [2, 2, 2]
    assert lines == ["error: ot.epsilon must be > 0"]
    assert left == ["error: ot.epsilon must be > 0"]


@pytest.mark.parametrize("own", [0, 1])
def test_what_one_has_is_said_whichever_it_is_and_so_is_what_follows(tmp_path, own):
    errors = [RunEndedError("another process has ended")] * 2
    errors[own] = UserError("the disk of this machine lacks a file")
    codes, lines, _ = both(tmp_path, *errors)
    assert codes[own] == 2
    assert sorted(lines) == ["error: another process has ended", "error: the disk of this machine lacks a file"]


def test_a_bug_keeps_its_traceback_once(tmp_path):
    codes, lines, left = both(tmp_path, *[ZeroDivisionError("a bug")] * 2)
    assert codes == [1, 1]
    assert [line for line in lines if line == "ZeroDivisionError: a bug"] == ["ZeroDivisionError: a bug"]
    assert len(left) == 1


def test_the_launchers_request_to_end_does_not_cut_off_the_message(tmp_path):
    def end(arguments):
        raise RunEndedError("another process has ended")

    training = Training(tmp_path, [], 2, action=end)
    time.sleep(0.5)
    for rank in range(2):
        training.kill(rank, signal.SIGTERM)
    assert "another process has ended" in "".join(training.wait(rank, 60).said for rank in range(2))
