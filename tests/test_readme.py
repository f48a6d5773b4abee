"""The README's example runs, the commands of it and of its pages parse, and the files they name exist."""

import re
import shlex
from pathlib import Path

import yaml

from otrw.commands.checkout import STUDY_RECORDS
from otrw.commands.table import main as make_table
from otrw.config.command_line import parse_config
from otrw.tuning.plan import make_plan
from otrw.tuning.space import parse_space

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("launch/README.md", "tuning/README.md", "docker/README.md", "analysis/RESULTS.md")
ALL = "\n".join([README, *((ROOT / page).read_text(encoding="utf-8") for page in PAGES)])


def test_drop_in_example_runs_and_learns(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    first, *errors = capsys.readouterr().out.splitlines()
    right, wrong = (float(number) for number in re.findall(r"[0-9.]+", first))
    assert right > 1 > wrong
    uniform, balanced, transport = (float(re.search(r"error ([0-9.]+) %", line)[1]) for line in errors)
    assert transport < min(uniform, balanced)


def test_the_readme_fits_and_links_to_its_pages():
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).exists(), target
    for page in PAGES:
        assert f"]({page})" in README, page
        for target in re.findall(r"\]\(([^):]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / page).parent.joinpath(target).exists(), (page, target)


def test_training_commands_parse():
    commands = re.findall(r"^accelerate launch (.*)launch/train.py ?(.*)$", ALL, flags=re.MULTILINE)
    assert len(commands) >= 4
    for launcher, rest in commands:
        for path in re.findall(r"--config_file (\S+)", launcher):
            assert (ROOT / path).is_file()
        arguments = shlex.split(rest, comments=True)
        if "--run.resume" not in arguments:
            parse_config(arguments)


def test_analysis_commands_name_scripts_and_options_that_exist():
    commands = re.findall(r"^python (analysis/\S+\.py)(.*)$", ALL, flags=re.MULTILINE)
    assert {"analysis/make_table.py", "analysis/make_figures.py", "analysis/report.py"} <= {script for script, _ in commands}
    for script, rest in commands:
        (command,) = re.findall(r"from otrw.commands.(\w+) import main", (ROOT / script).read_text(encoding="utf-8")) or [None]
        if command is None:  # a benchmark
            continue
        text = (ROOT / "otrw" / "commands" / f"{command}.py").read_text(encoding="utf-8")
        for option in re.findall(r" (--\w[\w-]*)", rest.split(" #")[0]):
            assert f'"{option}"' in text, f"{script} {option}"


def test_the_table_of_the_studies_is_what_the_committed_records_say(tmp_path):
    page = (ROOT / "analysis" / "experiments" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(
        r"^python analysis/make_table.py (--study \S+ --brief (?:.*\\\n)*.*) --write README.md$", page, flags=re.M
    )
    arguments = shlex.split(command.replace("\\\n", " "))
    study = arguments[arguments.index("--study") + 1]
    written = tmp_path / "table.md"
    make_table([str(STUDY_RECORDS / study), *arguments, "--output", str(written)])
    assert f"<!-- {study}: begin -->\n{written.read_text(encoding='utf-8')}<!-- {study}: end -->" in README


def test_search_commands_parse(tmp_path):
    commands = re.findall(r"^python tuning/search.py ?(.*)$", ALL, flags=re.MULTILINE)
    assert len(commands) >= 4
    for number, command in enumerate(commands):
        arguments = ["default" if piece == "my_space.yaml" else piece for piece in shlex.split(command, comments=True)]
        if "--resume" not in arguments:
            make_plan([*arguments, f"--storage={tmp_path}", f"--name={number}"])


def test_space_in_the_readme_is_one():
    (space,) = re.findall(r"```yaml\n(.*?)```", ALL, flags=re.DOTALL)
    assert set(parse_space(yaml.safe_load(space))) == {"ot.epsilon", "ot.weights"}


def test_file_tree_names_what_is_there():
    (tree,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    for name in re.findall(r"\b(?:otrw|launch|tuning|analysis)/[\w/.]*", tree):
        assert (ROOT / name.rstrip(".")).exists(), name


def test_files_that_the_readme_points_at_exist():
    for name in re.findall(r"`((?:tests|otrw|launch|analysis|docker|tuning)/[\w/.-]+)`", README):
        assert (ROOT / name).exists(), name


def test_readme_names_the_settings_that_exist():
    printed = {f"{section}.{key}" for section, key in re.findall(r"`(data|stage1|stage2|ot)\.([a-z0-9_.]+)", ALL)}
    config = parse_config([])
    for path in printed:
        value: object = config
        for part in path.split("."):
            assert hasattr(value, part), path
            value = getattr(value, part)
