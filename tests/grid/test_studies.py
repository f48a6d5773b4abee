"""Studies as jobs: one stage 1 for all that may share it, and every record finds back to its condition."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from otrw.commands.experiment import main
from otrw.config import to_dict
from otrw.config.variants import ITERATING, variant_config
from otrw.errors import UserError
from otrw.grid.jobs import check_folders
from otrw.grid.studies import FACTORS, STUDIES, cell_of
from otrw.grid.study_jobs import study_jobs

SCRIPTS = Path(__file__).resolve().parents[2] / "analysis" / "experiments"
RUNNABLE = [study for study in STUDIES.values() if not study.asks_for]
REFRESHED = {"stage2.refresh_every_epochs"}


def test_every_study_has_its_script():
    assert set(STUDIES) <= {path.stem for path in SCRIPTS.glob("*.py")}


@pytest.mark.parametrize("name", STUDIES)
def test_a_script_explains_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    assert not stopped.value.code
    assert STUDIES[name].title in capsys.readouterr().out


@pytest.mark.parametrize("study", RUNNABLE, ids=lambda study: study.name)
def test_the_config_of_every_job_and_variant_is_of_the_condition_it_was_made_for(study):
    jobs = study_jobs(study, study.datasets, [3])
    assert len(jobs) == len(study.cells) * len(study.datasets)
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        (cell,) = [cell for cell in study.cells if job.name.endswith(f"-{cell.name}-seed3")]
        for variant in job.hashes:
            found = cell_of(study, to_dict(variant_config(job.config, variant)))
            assert found is not None
            differ = {path for path, _ in set(found.settings.items()) ^ set(cell.settings.items())}
            # one stage 1 stands for all conditions, and a variant without weights to refresh for both ways to keep them
            stands_for = REFRESHED if not variant.startswith(ITERATING) else set()
            assert differ <= stands_for or variant == "stage1"
        assert job.config.data.imbalance_factor == FACTORS[job.config.data.source]


HUMAN = ["--data.labels_file", "CIFAR_human.npz"]


def test_labels_that_people_gave_are_an_array_a_condition_of_one_file():
    study = STUDIES["human_errors"]
    jobs = study_jobs(study, ["cifar10", "cifar100"], [3], overrides=HUMAN)
    assert len(jobs) == len(study.cells)
    assert len({job.hashes["stage1"] for job in jobs}) == 4  # one for each array
    for job in jobs:
        (cell,) = [cell for cell in study.cells if job.name.endswith(f"-{cell.name}-seed3")]
        assert job.config.data.source in cell.datasets
        assert job.config.data.labels_file == f"CIFAR_human.npz{cell.settings['data.labels_file']}"
        for variant in set(job.hashes) - {"stage1"}:
            found = cell_of(study, to_dict(variant_config(job.config, variant)))
            looks_again = variant.startswith(ITERATING)
            assert found is not None
            assert found.name == (cell.name if looks_again else cell.name.removesuffix("-kept"))  # nothing to keep is the same
    config = to_dict(jobs[0].config)
    config["data"]["labels_file"] = None
    assert cell_of(study, config) is None


@pytest.mark.parametrize("name", ["few_trusted", "imperfect_trusted"])
def test_conditions_that_differ_in_the_trusted_set_alone_share_stage_1(name):
    jobs = study_jobs(STUDIES[name], ["digits"], [0])
    assert len({job.hashes["stage1"] for job in jobs}) == 1
    assert len({job.hashes["ot_meta"] for job in jobs}) == len(jobs)


def test_data_without_wrong_labels_have_no_oracle():
    jobs = study_jobs(STUDIES["noise_tail"], ["digits"], [0])
    assert [job.name for job in jobs if "oracle_meta" not in job.hashes] == ["digits_lt-if20-clean-seed0"]


def test_finding_wrong_labels_trains_nothing_that_noise_tail_has_trained():
    trained = {value for job in study_jobs(STUDIES["noise_tail"], ["digits"], [0]) for value in job.hashes.values()}
    wanted = {value for job in study_jobs(STUDIES["finding_wrong_labels"], ["digits"], [0]) for value in job.hashes.values()}
    assert wanted <= trained


def test_own_variants_are_runs_of_their_own_on_the_same_stage_1():
    (usual,) = study_jobs(STUDIES["noise_tail"], ["digits"], [0], ["clean"])
    (own,) = study_jobs(STUDIES["noise_tail"], ["digits"], [0], ["clean"], ["--variants", "ot,ot_meta"])
    assert own.name == f"{usual.name}-ot-ot_meta"
    assert own.hashes["stage1"] == usual.hashes["stage1"]
    assert set(own.hashes) == {"stage1", "ot", "ot_meta"}


def test_bad_conditions_and_settings_that_are_missing_are_refused():
    with pytest.raises(UserError, match=r"^--cells must be one of clean, symmetric20, .*, got 'cleen'$"):
        study_jobs(STUDIES["noise_tail"], ["digits"], [0], ["cleen"])
    with pytest.raises(UserError, match=r"^--data\.labels_file must be given for human_errors"):
        study_jobs(STUDIES["human_errors"], ["cifar10"], [0])
    with pytest.raises(UserError, match=r"^--data\.labels_file must stand without .*--cells, got 'a.npz:worse_label'"):
        study_jobs(STUDIES["human_errors"], ["cifar10"], [0], [], ["--data.labels_file=a.npz:worse_label"])
    with pytest.raises(UserError, match=r"^--cells must be conditions of cifar100, got worse_label-1"):
        study_jobs(STUDIES["human_errors"], ["cifar100"], [0], ["worse_label-1"], HUMAN)


def test_a_folder_that_was_begun_with_other_settings_is_not_gone_on_with(tmp_path):
    common = ["--datasets", "digits", "--cells", "symmetric40", "--seeds", "0", "--directory", str(tmp_path), "--dry-run"]
    (job,) = study_jobs(STUDIES["noise_tail"], ["digits"], [0], ["symmetric40"], ["--stage1.epochs", "3"])
    folder = tmp_path / "noise_tail" / job.name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(job.config)))
    with pytest.raises(UserError, match=r"was begun with stage1.epochs 3, got 4.*another --directory"):
        main("noise_tail", [*common, "--stage1.epochs", "4"])
    with pytest.raises(UserError, match="was begun with variants"):
        check_folders([job._replace(config=replace(job.config, variants=("stage1", "ot_meta")))], folder.parent)
    check_folders([job], folder.parent)
    (folder / "config.yaml").write_text("stage1: [")
    check_folders([job], folder.parent)  # damaged: the run says so


def test_what_makes_a_condition_cannot_be_set_for_all_of_them():
    with pytest.raises(UserError, match=r"^--stage2.meta_loss_factor must not be given for trusted_weight, .*--cells"):
        study_jobs(STUDIES["trusted_weight"], ["digits"], [0], [], ["--stage2.meta_loss_factor=0.5"])


def test_a_setting_that_a_record_lacks_has_its_default_and_not_what_a_condition_wants():
    study = STUDIES["few_trusted"]
    (job,) = study_jobs(study, ["digits"], [0], ["trusted10"], ["--variants=ot_meta"])
    config = to_dict(job.config)
    assert cell_of(study, config).name == "trusted10"
    del config["data"]["num_meta_used_per_class"]
    assert cell_of(study, config) is None
