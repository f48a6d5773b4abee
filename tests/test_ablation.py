"""The pieces of the ablation are settings that exist, and each changes what it names and nothing else."""

import runpy
from pathlib import Path

import pytest

from otrw.config import flatten, to_dict
from otrw.config.command_line import parse_config
from otrw.records.fingerprint import fingerprint

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[1] / "analysis" / "experiments" / "strong_ablation.py"))
PIECES, BASE, WHOLE = SCRIPT["PIECES"], SCRIPT["BASE"], SCRIPT["WHOLE"]


def settings(piece):
    return flatten(to_dict(parse_config(SCRIPT["arguments_of"](SCRIPT["settings_of"](piece, 30, 0)))))


@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece != "base"])
def test_a_piece_changes_the_settings_that_it_names_alone(piece):
    base, changed = settings("base"), settings(piece)
    assert {path for path in base if base[path] != changed[path]} == set(PIECES[piece])


def test_runs_of_different_pieces_have_different_names():
    hashes = {
        piece: fingerprint(to_dict(parse_config(SCRIPT["arguments_of"](SCRIPT["settings_of"](piece, 30, 0)))), with_seed=True)
        for piece in [*PIECES, WHOLE]
    }
    assert len(set(hashes.values())) == len(hashes)


def test_the_whole_is_the_preset_but_for_length_and_validation_split():
    preset, whole = flatten(to_dict(parse_config(["--config", "strong"]))), settings(WHOLE)
    changed = {path for path in preset if preset[path] != whole[path] and not path.startswith("run.")}
    assert changed == {"data.num_validation_per_class", "stage1.epochs", "variants"}
    assert all(settings("base")[path] != whole[path] for path in ("stage1.loss.name", "data.augment.policy"))
