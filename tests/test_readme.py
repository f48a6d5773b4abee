"""The README's example runs, its commands parse, and the files it names exist."""

import re
import shlex
from pathlib import Path

import torch
import yaml

from otrw.config.command_line import parse_config
from otrw.tuning.plan import make_plan
from otrw.tuning.space import parse_space

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_drop_in_example_runs_and_learns():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    images, labels, net, weights = (names[key] for key in ("images", "labels", "net", "weights"))
    held_out = torch.ones(len(labels), dtype=torch.bool)
    held_out[names["train"]] = held_out[names["meta"]] = False
    assert (net(images[held_out]).argmax(1) == labels[held_out]).float().mean() > 0.85
    given = labels[names["train"]]
    mass = torch.stack([weights[given == c].sum() for c in range(10)]) / weights.sum()
    counts = torch.bincount(given) / len(given)
    assert (mass - 0.1).abs().max() < (counts - 0.1).abs().max() / 2  # nearer to balanced than the data


def test_training_commands_parse():
    commands = re.findall(r"^accelerate launch (.*)launch/train.py ?(.*)$", README, flags=re.MULTILINE)
    assert len(commands) >= 4
    for launcher, rest in commands:
        for path in re.findall(r"--config_file (\S+)", launcher):
            assert (ROOT / path).is_file()
        arguments = shlex.split(rest, comments=True)
        if "--run.resume" not in arguments:
            parse_config(arguments)


def test_analysis_commands_name_scripts_and_options_that_exist():
    commands = re.findall(r"^python (analysis/\S+\.py)(.*)$", README, flags=re.MULTILINE)
    assert {"analysis/make_table.py", "analysis/make_figures.py", "analysis/report.py"} <= {script for script, _ in commands}
    for script, rest in commands:
        text = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r" (--\w[\w-]*)", rest.split(" #")[0]):
            assert f'"{option}"' in text, f"{script} {option}"


def test_search_commands_parse(tmp_path):
    commands = re.findall(r"^python tuning/search.py ?(.*)$", README, flags=re.MULTILINE)
    assert len(commands) >= 4
    for number, command in enumerate(commands):
        arguments = ["default" if piece == "my_space.yaml" else piece for piece in shlex.split(command, comments=True)]
        if "--resume" not in arguments:
            make_plan([*arguments, f"--storage={tmp_path}", f"--name={number}"])


def test_space_in_the_readme_is_one():
    (space,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert set(parse_space(yaml.safe_load(space))) == {"ot.epsilon", "ot.weights"}


def test_file_tree_names_what_is_there():
    tree = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)[0]
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        folder = Path(names[0]).parent
        for name in [names[0], *(str(folder / other) for other in names[1:])]:
            assert (ROOT / name).exists(), name


def test_readme_names_the_settings_that_exist():
    printed = {f"{section}.{key}" for section, key in re.findall(r"`(data|stage1|stage2|ot)\.([a-z0-9_.]+)", README)}
    config = parse_config([])
    for path in printed:
        value: object = config
        for part in path.split("."):
            assert hasattr(value, part), path
            value = getattr(value, part)
