"""From an audit to a corrected run: the page, its CSV, the command that is printed, and that nothing is listed twice."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from made_own import write_classes
from PIL import Image

from otrw.commands import audit, train
from otrw.errors import UserError

COLORS = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cow": (30, 30, 200)}
VARIANT = "ot_noise_aware_meta"
SMALL = [
    "--model.name=small",
    "--stage1.epochs=4",
    "--variants=ot_noise_aware_meta",
    "--run.tensorboard=false",
    "--run.cpu=true",
]


def truth(identity):
    """Six of the pictures in the ants' folder show bees."""
    name = identity.rpartition("/")[2].removesuffix(".png")
    return "bee" if name in {f"ant000{n}" for n in range(6)} else {"a": "ant", "b": "bee", "c": "cow"}[name[0]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corrections")
    root = write_classes(folder / "photos", {"ant": 40, "bee": 30, "cow": 20})
    random = np.random.default_rng(0)
    for path in sorted(root.glob("*/*.png")):
        noise = random.integers(-25, 26, size=(8, 8, 3))
        pixels = (np.array(COLORS[truth(str(path))]) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(
            ["--data.source=folder", f"--data.root={root}", "--run.name=first", "--variants=ot_noise_aware_meta", *SMALL]
        )
    return folder / "runs" / "first"


def test_what_is_judged_on_the_page_is_corrected_by_the_command_that_is_printed(run, capsys, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    audit.main([str(run), "--check", "12"])
    shown = capsys.readouterr().out
    variant = run / VARIANT
    facts = json.loads(re.search(r"const sheet = (.*);\n", (variant / "check.html").read_text(encoding="utf-8"))[1])
    with (variant / "audit.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert {identity for identity, _, _ in facts["cards"]} == {row["identity"] for row in listed[:12]}
    suggested = {row["identity"]: row["suggested_label"] for row in listed}
    for identity, given, other in facts["cards"]:
        says_other = suggested[identity] != facts["classes"][given]
        assert (other is not None) == says_other
        assert not says_other or facts["classes"][other] == suggested[identity]
    assert all((row["label"], row["verdict"]) == (row["given_label"], "") for row in listed)

    judged = listed[:12]
    for row in judged:  # as somebody does who fills in audit.csv
        row["label"] = truth(row["identity"])
        row["verdict"] = "right" if row["label"] == row["given_label"] else "wrong"
    num_wrong = sum(row["verdict"] == "wrong" for row in judged)
    assert num_wrong >= 3
    with open(facts["file"], "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, listed[0].keys())
        writer.writeheader()
        writer.writerows(listed)
    command = shlex.split(re.search(r"then +(.*)", shown)[1])
    train.main(command[command.index("--config") :])
    again = run.parent / "first-corrected"
    result = json.loads((again / VARIANT / "result.json").read_text())
    assert result["data"]["corrected"] == {"samples": 12, "wrong": num_wrong}
    capsys.readouterr()
    audit.main([str(again), "--check", "3"])
    shown = capsys.readouterr().out
    assert "12 that were judged before" in shown
    assert "--data.corrections corrections.csv,corrections2.csv" in shown
    with (again / VARIANT / "audit.csv").open(encoding="utf-8", newline="") as file:
        left = {row["identity"] for row in csv.DictReader(file)}
    assert left == {row["identity"] for row in listed} - {row["identity"] for row in judged}
    table = variant / "audit.csv"
    table.write_bytes(Path(facts["file"]).read_bytes())
    with pytest.raises(UserError, match=r"--output must not hold judged labels, got .*audit\.csv with 12; move it"):
        audit.main([str(run)])
    assert table.read_bytes() == Path(facts["file"]).read_bytes()
