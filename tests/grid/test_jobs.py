"""The plan of a results table: which runs there are, what counts as done, how much work is left."""

import pytest

from otrw.config import to_dict
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.errors import UserError
from otrw.grid.jobs import finished_variants, job_state, make_jobs, variant_work
from otrw.grid.precision import resolved_precision
from otrw.records import ledger
from otrw.records.fingerprint import fingerprint

DIGITS = (["digits_lt"], ["digits"], [20.0, 50.0], [0, 1])


def write_record(folder, config, variant):
    folder.mkdir(parents=True)
    ledger.write_yaml(folder / "config.yaml", to_dict(variant_config(config, variant)))
    ledger.write_json(folder / "environment.json", {})
    ledger.write_json(folder / "result.json", {"row": variant})


def test_the_papers_table_has_its_eight_cells_and_a_preset_of_one_data_set_stays_there():
    jobs = make_jobs(["official", "cifar10_lt", "cifar100_lt"], ["cifar10", "cifar100"], [200, 100, 50, 20], [0, 1, 2])
    assert len(jobs) == 8 * 3 * 2
    cells = {(job.preset, job.config.data.source, job.config.data.imbalance_factor) for job in jobs}
    assert len(cells) == 16
    assert ("cifar10_lt", "cifar100", 100) not in cells
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(set(job.hashes) >= {"stage1", "ot_meta", "class_balanced_meta"} for job in jobs)


def test_the_embeddings_are_cached_where_the_slow_path_takes_days_unless_asked_for():
    (job,) = make_jobs(["official"], ["cifar100"], [100], [0])
    assert job.config.stage2.embeddings == "cached"
    (job,) = make_jobs(["official"], ["cifar100"], [100], [0], ["--stage2.embeddings", "forward"])
    assert job.config.stage2.embeddings == "forward"
    (job,) = make_jobs(["official"], ["cifar10"], [100], [0])
    assert job.config.stage2.embeddings == "forward"


def test_a_row_is_done_where_its_record_lies_whatever_its_folder_is_called(tmp_path):
    job = make_jobs(*DIGITS)[0]
    write_record(tmp_path / "another name" / "ot_meta", job.config, "ot_meta")
    (tmp_path / "broken" / "oracle_meta").mkdir(parents=True)
    (tmp_path / "broken" / "oracle_meta" / "result.json").write_text("{")
    states = job_state(job, tmp_path, finished_variants([tmp_path]))
    assert {variant for variant, state in states.items() if state.is_done} == {"ot_meta"}
    assert states["ot_meta"].work_left == 0
    other_seed = make_jobs(*DIGITS)[-1]
    assert not any(state.is_done for state in job_state(other_seed, tmp_path, finished_variants([tmp_path])).values())


def test_the_work_left_shrinks_with_the_epochs_that_are_done(tmp_path):
    job = make_jobs(*DIGITS)[0]
    folder = tmp_path / job.name / "stage1"
    folder.mkdir(parents=True)
    for epoch in range(job.config.stage1.epochs // 2):
        ledger.append_line(folder / "metrics.jsonl", {"epoch": epoch})
    state = job_state(job, tmp_path, {})["stage1"]
    assert state.work_left == pytest.approx(state.work * (1 - state.done_epochs / state.epochs))
    assert 0.4 * state.work < state.work_left < 0.6 * state.work


def test_work_counts_images_by_hand():
    cell = ["--config", "official", "--data.imbalance_factor", "100", "--run.evaluate_every_epochs", "160"]
    config = parse_config(cell)
    num_train = 12_380
    assert variant_work(config, "stage1") == 160 * 3 * num_train + 10_000
    steps = 774
    assert variant_work(config, "ot_meta") == 90 * (num_train + steps * 100) + num_train + 10_000
    assert variant_work(config, "ot") == 90 * num_train + num_train + 10_000
    cached = parse_config([*cell, "--stage2.embeddings", "cached"])
    later = [variant for variant in cached.variants if variant != "stage1"]
    assert sum(variant_work(cached, variant) for variant in later) == pytest.approx(num_train + 100 + 3 * 10_000)


def test_stage_1_is_the_same_for_presets_that_share_its_settings():
    (one,) = make_jobs(["official"], ["cifar10"], [100], [0])
    (other,) = make_jobs(["official"], ["cifar10"], [100], [0], ["--stage2.embeddings", "cached"])
    assert (
        one.hashes["stage1"]
        == other.hashes["stage1"]
        == fingerprint(to_dict(variant_config(one.config, "stage1")), with_seed=True)
    )
    assert one.name != other.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["nothing"], ["digits"], [20.0], [0]), "--presets must name some of"),
        ((["digits_lt"], ["cifar10"], [20.0], [0]), "--presets must fit --datasets"),
        ((["digits_lt"], ["digits"], [20.0], [0, 0]), "every value once"),
        ((["digits_lt"], ["digits"], [0.5], [0]), "data.imbalance_factor must be >= 1"),
    ],
)
def test_a_bad_grid_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        make_jobs(*arguments)


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    assert not ledger.is_locked(tmp_path / "missing")
    with ledger.locked(tmp_path):
        assert ledger.is_locked(tmp_path)
        with pytest.raises(UserError, match="another process trains there"), ledger.locked(tmp_path):
            pass
    assert not ledger.is_locked(tmp_path)


def test_a_record_of_another_precision_is_not_the_run_that_is_asked_for(tmp_path):
    job = make_jobs(*DIGITS, ["--run.cpu", "true"])[0]
    (bf16,) = make_jobs(["digits_lt"], ["digits"], [20.0], [0], ["--run.cpu", "true", "--run.precision", "bf16"])
    assert job.name != bf16.name
    folder = tmp_path / "run" / "ot_meta"
    write_record(folder, job.config, "ot_meta")
    ledger.write_json(folder / "environment.json", {"precision": "bf16"})
    finished = finished_variants([tmp_path])
    assert not job_state(job, tmp_path, finished)["ot_meta"].is_done
    assert job_state(bf16, tmp_path, finished)["ot_meta"].is_done


@pytest.mark.parametrize("arguments", [[], ["--run.precision=bf16"], ["--run.cpu=true"]])
def test_the_precision_is_the_one_that_training_will_have(arguments):
    from otrw.training.run import start_accelerator

    run = parse_config(arguments).run
    accelerator = start_accelerator(run)
    assert accelerator.mixed_precision == resolved_precision(run)
    accelerator.state._reset_state(True)
