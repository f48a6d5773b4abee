"""Which job of a grid starts when."""

import time

import pytest
import yaml
from rich.console import Console

from otrw.config import to_dict
from otrw.grid.runner import Grid
from otrw.grid.studies import STUDIES
from otrw.grid.study_jobs import study_jobs


def test_what_was_begun_goes_on_before_another_trains_the_same_stage_1_anew(tmp_path, monkeypatch):
    jobs = study_jobs(STUDIES["trusted_weight"], ["digits"], [0], ["factor0.1", "factor1"])
    assert jobs[0].hashes["stage1"] == jobs[1].hashes["stage1"]
    folder = tmp_path / jobs[1].name
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(jobs[1].config)))
    started = []

    def start(self, job, stage1, claims):
        started.append(job.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Grid, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        Grid(jobs, tmp_path, 1, [], Console(quiet=True)).train(time.monotonic() + 60)
    assert started == [jobs[1].name]
