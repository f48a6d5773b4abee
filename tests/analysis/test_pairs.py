"""Which records are compared seed by seed: those of one experiment, whatever their folders are called."""

import json
import shutil

from made_records import write_record

from otrw.analysis.table import make_blocks
from otrw.records.experiments import load_experiments

OFFICIAL = ("--config", "official", "--data.imbalance_factor", "100")
LEFT, RIGHT = (17.0, 18.0, 19.0), (17.0, 19.0, 24.0)  # differences 0, -1, -5


def compared(*roots, unique=True):
    blocks = make_blocks(load_experiments(roots, unique=unique).experiments, datasets=["cifar10"])
    return [(one.difference.num_pairs, one.difference.mean) for block in blocks for one in block.compared]


def test_runs_of_the_same_folder_name_below_different_roots_are_not_mixed_up(tmp_path):
    for seed, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
        root = tmp_path / f"root{seed}"
        write_record(root / "run", *OFFICIAL, error=left, seed=seed)
        write_record(root / "run", *OFFICIAL, variant="class_balanced_meta", error=right, seed=seed)
    assert compared(*sorted(tmp_path.iterdir())) == [(3, -2.0)]


def test_a_control_in_a_folder_of_its_own_is_found(tmp_path):
    for seed, (left, right) in enumerate(zip(LEFT, RIGHT, strict=True)):
        write_record(tmp_path / f"ours-{seed}", *OFFICIAL, error=left, seed=seed)
        write_record(tmp_path / f"control-{seed}", *OFFICIAL, variant="class_balanced_meta", error=right, seed=seed)
    assert compared(tmp_path) == [(3, -2.0)]


def test_variants_in_one_folder_with_other_settings_are_no_pair(tmp_path):
    for seed in range(3):
        write_record(tmp_path / f"run-{seed}", *OFFICIAL, error=10.0, seed=seed)
        other = ("--stage1.epochs", "24")
        write_record(tmp_path / f"run-{seed}", *OFFICIAL, *other, variant="class_balanced_meta", error=20.0, seed=seed)
    assert compared(tmp_path) == []


def test_a_split_of_another_seed_or_another_precision_is_no_pair(tmp_path):
    for seed in range(3):
        write_record(tmp_path / "a" / f"run-{seed}", *OFFICIAL, error=10.0, seed=seed)
        fixed = ("--data.seed", "9")
        write_record(tmp_path / "a" / f"run-{seed}", *OFFICIAL, *fixed, variant="class_balanced_meta", error=20.0, seed=seed)
        write_record(tmp_path / "b" / f"run-{seed}", *OFFICIAL, error=10.0, seed=seed)
        bf16 = write_record(tmp_path / "b" / f"run-{seed}", *OFFICIAL, variant="class_balanced_meta", error=20.0, seed=seed)
        (bf16 / "environment.json").write_text(json.dumps({"precision": "bf16"}))
    assert compared(tmp_path / "a") == compared(tmp_path / "b") == []


def test_stage_1_from_the_file_of_a_known_run_is_that_runs(tmp_path):
    for seed in range(2):
        write_record(tmp_path / f"first-{seed}", *OFFICIAL, error=10.0, seed=seed)
        write_record(tmp_path / f"first-{seed}", *OFFICIAL, variant="stage1", error=30.0, seed=seed)
        later = ("--stage1.checkpoint", f"runs/first-{seed}/stage1/model.safetensors")
        write_record(tmp_path / f"later-{seed}", *OFFICIAL, *later, variant="class_balanced_meta", error=12.0, seed=seed)
    assert compared(tmp_path) == [(2, -2.0)]
    for seed in range(2):  # now nothing says what that file was trained on
        folder = tmp_path / f"later-{seed}" / "class_balanced_meta"
        text = (folder / "config.yaml").read_text().replace(f"runs/first-{seed}/", f"runs/gone-{seed}/")
        (folder / "config.yaml").write_text(text)
    assert compared(tmp_path) == []


def test_copies_count_once_and_runs_of_one_name_do_not_hide_each_other(tmp_path):
    write_record(tmp_path / "one" / "run", *OFFICIAL, error=10.0, seed=0)
    write_record(tmp_path / "two" / "run", *OFFICIAL, error=11.0, seed=1)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    roots = [tmp_path / name for name in ("one", "two", "copy")]
    for unique in (True, False):
        experiments = load_experiments(roots, unique=unique).experiments
        assert [experiment.seed for experiment in experiments] == [0, 1]
