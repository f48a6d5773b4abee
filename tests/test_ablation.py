"""The pieces of the ablation are settings that exist, and each changes what it names and nothing else."""

import runpy
from pathlib import Path

import pytest
from made_records import write_record
from rich.console import Console

from otrw.config import flatten, to_dict
from otrw.config.command_line import parse_config
from otrw.errors import UserError

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[1] / "analysis" / "experiments" / "strong_ablation.py"))
PIECES, WHOLE, job_of, main = SCRIPT["PIECES"], SCRIPT["WHOLE"], SCRIPT["job_of"], SCRIPT["main"]


def settings(piece):
    return flatten(to_dict(job_of(piece, "cifar10", 0).config))


@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece != "base"])
def test_a_piece_changes_the_settings_that_it_names_alone(piece):
    base, changed = settings("base"), settings(piece)
    assert {path for path in base if base[path] != changed[path]} == set(PIECES[piece])


def test_runs_of_different_pieces_are_different_methods_and_have_folders_of_their_own():
    jobs = [job_of(piece, "cifar10", 0) for piece in [*PIECES, WHOLE]]
    assert len({job.hashes["stage1"] for job in jobs}) == len(jobs)
    assert len({job.name for job in jobs}) == len(jobs)


def test_the_whole_is_the_preset_but_for_length_and_validation_split():
    preset, whole = flatten(to_dict(parse_config(["--config", "strong"]))), settings(WHOLE)
    changed = {path for path in preset if preset[path] != whole[path] and not path.startswith("run.")}
    assert changed == {"data.num_validation_per_class", "stage1.epochs", "variants"}
    assert all(settings("base")[path] != whole[path] for path in ("stage1.loss.name", "data.augment.policy"))


def test_a_record_older_than_a_setting_is_of_its_piece():
    """What the committed records lack has its default in them."""
    config = to_dict(job_of("balanced_softmax", "cifar10", 0).config)
    del config["stage1"]["optimizer"]["sam_start"]
    assert SCRIPT["piece_of"](config) == "balanced_softmax"


def test_a_dry_run_shows_the_plan_and_trains_nothing(tmp_path, capsys):
    main(["--dry-run", "--pieces", "base", "sam", "--stage1.epochs", "2", "--directory", str(tmp_path / "runs")])
    assert "2 runs, 0 of 2 variants done" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="wat"):
        main(["--pieces", "base", "--wat", "3", "--directory", str(tmp_path)])


def test_the_table_holds_each_piece_against_the_base_of_its_seed(tmp_path, capsys):
    for piece, errors in {"base": (50.0, 52.0), "sam": (48.0, 51.0)}.items():
        for seed, error in enumerate(errors):
            job = job_of(piece, "cifar10", seed, ["--stage1.epochs", "2"])
            validation = {"error": error, "many_error": 40.0, "medium_error": None}
            write_record(tmp_path / job.name, *job.arguments, variant="stage1", seed=seed, validation=validation)
    SCRIPT["print_tables"](Console(width=100), [tmp_path])
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert "51.0 (1.4)" in lines["nothing more"]
    assert "49.5 (2.1)" in lines["sam"]
    assert "-1.5 (-7.9 to +4.9)" in lines["sam"]
    assert lines["sam"].split("│")[4].strip() == "40.0"
    assert lines["sam"].split("│")[5].strip() == "-"


def test_no_records_are_one_line(tmp_path):
    with pytest.raises(UserError, match="--table must have records of a piece, got none"):
        SCRIPT["print_tables"](Console(width=100), [tmp_path])
