"""What is said where Ray itself does not start."""

import pytest

from otrw.errors import RunEndedError
from otrw.tuning.connect import connect

ray = pytest.importorskip("ray", reason="the search needs Ray")


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    def init(**_options):
        raise Exception("The current node timed out during startup.\nIts log says more.")  # as ray 2.59 to 2.61 do

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RunEndedError, match=r"^Ray did not start on this machine \(The current node timed out[^\n]*disk$"):
        connect(None, 1)
