"""The committed stage-1 nets load into the net that their README names, and say what they were made from."""

from pathlib import Path

import pytest
from safetensors import safe_open

from otrw.models.build import build_model
from otrw.training.checkpoints import load_model

FOLDER = Path(__file__).resolve().parents[2] / "analysis" / "checkpoints"
FILES = sorted(FOLDER.glob("*.safetensors"))


def test_there_are_committed_nets():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_committed_net_loads_and_is_documented(path):
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    num_classes = {"cifar10": 10, "cifar100": 100}[facts["source"]]
    load_model(path, build_model("resnet32", num_classes, in_channels=3, width_multiplier=1, head="linear"), {})
    row = next(line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith(f"| {path.name} "))
    assert facts["split"] in row
    record = FOLDER.parent / "results" / path.stem / "stage1" / "result.json"
    assert facts["split"] in record.read_text()
