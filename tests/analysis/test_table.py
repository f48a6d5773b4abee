"""The table from hand-made records: every cell, mark and footnote known beforehand, in every format."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from made_records import write_record

from otrw.analysis import formats
from otrw.analysis.main_results import main_results
from otrw.analysis.table import PAPER_FACTORS, Published, make_blocks, read_published
from otrw.config import to_dict
from otrw.config.command_line import parse_config
from otrw.config.known_data import data_set_name
from otrw.config.variants import variant_config
from otrw.errors import UserError
from otrw.records.experiments import AXES, _preset, load_experiments
from otrw.records.fingerprint import decisive_settings

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ("--config", "official", "--data.imbalance_factor", "100")
SHORT = ("--config", "cifar10_lt", "--stage1.epochs", "24")
PUBLISHED = [
    Published("OT re-weighting (paper)", "target", "resnet32-w16", "cifar10", 100.0, 18.13, None, "", "the paper"),
    Published("Strong_er & <better>", "strong", "resnet32-w16", "cifar10", 100.0, 9.5, 0.1, "400", "a README"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three seeds of an official variant and its control, a short run, a noisy one with an oracle."""
    folder = tmp_path_factory.mktemp("records")
    for seed, error in enumerate((17.0, 18.0, 19.0)):
        write_record(folder / f"official-{seed}", *OFFICIAL, error=error, seed=seed)
        write_record(folder / f"official-{seed}", *OFFICIAL, variant="class_balanced_meta", error=error + seed, seed=seed)
    write_record(folder / "short", *SHORT, variant="ot", error=26.25)
    noisy = ("--data.imbalance_factor", "50")
    write_record(folder / "noisy", *noisy, variant="ot_meta", error=6.0)
    write_record(folder / "noisy", *noisy, variant="oracle_meta", error=5.0)
    return folder


def blocks_of(root, **settings):
    experiments, problems, _ = load_experiments([root])
    assert problems == []
    return make_blocks(experiments, PUBLISHED, **settings)


def lines_of(block):
    return {(line.group, line.name): line for line in block.lines}


def test_cells_are_means_over_the_seeds_of_one_method(root):
    cifar10, cifar100, digits = blocks_of(root)
    assert cifar10.factors == cifar100.factors == PAPER_FACTORS
    lines = lines_of(cifar10)
    assert list(lines) == [
        ("published", "paper"),
        ("official", "class-balanced + meta"),
        ("official", "OT + meta"),
        ("official", "OT + meta, best test epoch"),
        ("cifar10_lt", "OT"),
    ]
    ours = lines["official", "OT + meta"]
    assert ours.net == "resnet32 w16, 0.46 M"
    assert ours.epochs == "160+90"
    assert ours.cells == {100.0: (18.0, 1.0, 3, "18.0", True)}
    assert lines["official", "class-balanced + meta"].cells[100.0][:3] == (19.0, 2.0, 3)  # 17, 19, 21
    assert lines["official", "OT + meta, best test epoch"].cells[100.0] == (17.5, 1.0, 3, "17.5", False)
    assert lines["published", "paper"].cells[100.0] == (18.13, None, 0, "18.13", False)
    assert [line.name for line in cifar100.lines] == ["OT + meta"]  # missing, and shown as missing
    assert cifar100.lines[0].cells == {}
    assert lines_of(digits)["digits_lt", "OT + meta"].cells == {50.0: (6.0, None, 1, "6.0", True)}
    assert lines_of(digits)["digits_lt", "oracle + meta"].cells == {50.0: (5.0, None, 1, "5.0", False)}


def test_a_short_run_is_marked_and_says_by_how_much(root):
    short = lines_of(blocks_of(root)[0])["cifar10_lt", "OT"]
    assert short.short
    assert short.epochs == "24+20"
    assert short.differences == ("stage1.epochs 24 of 200",)


def test_an_ot_row_is_paired_with_its_control(root):
    (compared,) = blocks_of(root)[0].compared
    assert (compared.left, compared.right) == ("OT + meta", "class-balanced + meta")
    assert compared.difference[:2] == (-1.0, 3)  # 0, -1, -2
    assert compared.difference.p is None


def test_terminal(root):
    text = formats.plain(blocks_of(root, datasets=["cifar10"]))
    assert text.splitlines()[:15] == [
        "CIFAR-10-LT",
        "Test error in %, by imbalance factor",
        "                        epochs      seeds 200        100 50 20",
        "published",
        "  resnet32 w16",
        "  paper                 -               -   -      18.13  -  -",
        "ours, preset official",
        "  resnet32 w16, 0.46 M",
        "  class-balanced + meta 160+90          3   - 19.0 (2.0)  -  -",
        "  OT + meta             160+90          3   - 18.0 (1.0)  -  -",
        "  OT + meta,            160+90          3   - 17.5 (1.0)  -  -",
        "    best test epoch",
        "ours, preset cifar10_lt",
        "  resnet32 w16, 0.46 M",
        "  OT [a]                24+20 short     1   -       26.2  -  -",
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_markdown(root):
    text = formats.markdown(blocks_of(root, datasets=["cifar10"]))
    assert text.splitlines()[:9] == [
        "**CIFAR-10-LT.** Test error in %, by imbalance factor.",
        "",
        "|  | method | 200 | 100 | 50 | 20 | seeds | epochs | net |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        "| published | paper | - | 18.13 | - | - | - | - | resnet32 w16 |",
        "| official | class-balanced + meta | - | 19.0 (2.0) | - | - | 3 | 160+90 | resnet32 w16, 0.46 M |",
        "|  | OT + meta | - | **18.0 (1.0)** | - | - | 3 | 160+90 | resnet32 w16, 0.46 M |",
        "|  | OT + meta, best test epoch | - | 17.5 (1.0) | - | - | 3 | 160+90 | resnet32 w16, 0.46 M |",
        "| cifar10_lt | OT <sup>a</sup> | - | 26.2 | - | - | 1 | 24+20 short | resnet32 w16, 0.46 M |",
    ]


def test_latex(root):
    text = formats.latex(blocks_of(root, datasets=["cifar10"], all_published=True))
    assert r"OT + meta & - & 18.0 (1.0) & - & - & 3 & 160+90 & resnet32 w16, 0.46 M \\" in text  # no longer the best
    assert r"Strong\_er \& $<$better$>$ & - & \textbf{9.50 (0.1)} & - & - & - & 400 & resnet32 w16 \\" in text
    assert r"OT\textsuperscript{a} & - & 26.2 & - & - & 1 & 24+20 short & resnet32 w16, 0.46 M \\" in text
    for command in (r"\toprule", r"\bottomrule", r"\begin{tabular}{lrrrrrll}", r"\caption{CIFAR-10-LT. Test error in \%"):
        assert text.count(command) == 1
    bodies = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL)
    variants = [line for line in bodies[0].splitlines() if "&" in line]
    assert {len(re.split(r"(?<!\\)&", variant)) for variant in variants} == {8}


def test_html(root):
    text = formats.html_page(blocks_of(root, datasets=["cifar10"], all_published=True))
    parser = Cells()
    parser.feed(text)
    assert ["OT + meta", "-", "18.0 (1.0)", "-", "-", "3", "160+90", "resnet32 w16, 0.46 M"] in parser.variants
    assert ["Strong_er & <better>", "-", "9.50 (0.1)", "-", "-", "-", "400", "resnet32 w16"] in parser.variants
    assert "<better>" not in text
    assert "<b>9.50 (0.1)</b>" in text
    assert not re.search(r"https?://|<script|<link", text)


def test_csv_has_every_cell_unrounded(root):
    variants = list(csv.DictReader(io.StringIO(formats.table_csv(blocks_of(root)))))
    assert len(variants) == 5 * 4 + 1 * 4 + 2
    (ours,) = [
        variant
        for variant in variants
        if (variant["group"], variant["method"], variant["imbalance_factor"]) == ("cifar10_lt", "OT", "100")
    ]
    assert (float(ours["mean"]), ours["std"], ours["seeds"], ours["short"], ours["best"]) == (26.25, "", "1", "1", "0")
    (missing,) = [
        variant
        for variant in variants
        if (variant["method"], variant["dataset"], variant["imbalance_factor"]) == ("OT + meta", "cifar100", "20")
    ]
    assert missing["mean"] == missing["seeds"] == ""


def test_one_line_a_record_keeps_the_columns_of_every_version(tmp_path):
    old = write_record(tmp_path / "old", error=1.0)
    write_record(tmp_path / "new", error=2.0, seed=1, added_later={"figure": 3})
    settings = yaml.safe_load((old / "config.yaml").read_text())
    settings["ot"]["dropped_since"] = 7
    del settings["ot"]["solver"]
    (old / "config.yaml").write_text(yaml.safe_dump(settings))
    experiments, problems, _ = load_experiments([tmp_path])
    assert problems == []
    new, before = csv.DictReader(io.StringIO(formats.records_csv(experiments)))
    assert (new["result.added_later.figure"], before["result.added_later.figure"]) == ("3", "")
    assert (new["config.ot.dropped_since"], before["config.ot.dropped_since"]) == ("", "7")
    assert (new["config.ot.solver"], before["config.ot.solver"]) == ("auto", "")
    assert (new["result.test.error"], before["result.test.error"]) == ("2.0", "1.0")


def test_other_metrics(root):
    few = lines_of(blocks_of(root, metric="few")[0])
    assert few["official", "OT + meta"].cells[100.0].mean == 20.0
    assert ("published", "paper") not in few  # published numbers are top-1 errors
    assert ("official", "OT + meta, best test epoch") not in few
    assert lines_of(blocks_of(root, metric="ece")[0])["official", "OT + meta"].cells[100.0][:2] == (2.5, 0.0)
    medium = lines_of(blocks_of(root, metric="medium")[0])
    assert medium["official", "OT + meta"].cells == {}  # the records have none


def test_filters(root):
    assert [block.setting.dataset for block in blocks_of(root, presets=["digits_lt"])] == ["digits"]
    assert [block.setting.dataset for block in blocks_of(root, datasets=["digits"])] == ["digits"]
    assert {line.group for line in blocks_of(root, presets=["official"])[0].lines} == {"published", "official"}


@pytest.mark.parametrize("name", ["metric", "presets", "datasets"])
def test_what_is_not_known_is_refused_by_name(root, name):
    value = "fewest" if name == "metric" else ["fewest"]
    with pytest.raises(UserError, match=r"^--\w+ must be one of .*, got 'fewest'$"):
        blocks_of(root, **{name: value})


def test_different_methods_are_never_averaged(tmp_path):
    write_record(tmp_path / "a", *OFFICIAL, error=10.0, seed=0)
    write_record(tmp_path / "b", *OFFICIAL, "--ot.epsilon", "0.2", error=20.0, seed=1)
    lines = [line for line in blocks_of(tmp_path)[0].lines if line.name == "OT + meta"]
    assert [line.cells[100.0].mean for line in lines] == [10.0, 20.0]
    assert lines[1].differences == ("ot.epsilon 0.2 (preset: 0.1)",)
    assert not lines[1].short


def test_own_data_as_they_are_and_made_as_long_tailed_are_two_lines(tmp_path):
    own = ("--data.source", "folder", "--data.root", "photos")
    facts = {"dataset": "photos", "imbalance_factor": 12.5}
    write_record(tmp_path / "a", *own, variant="stage1", error=10.0, **facts)
    write_record(tmp_path / "b", *own, "--data.imbalance_factor", "12.5", variant="stage1", error=20.0, seed=1, **facts)
    block = next(block for block in blocks_of(tmp_path) if block.setting.dataset == "photos")
    errors = {line.differences: line.cells[12.5].mean for line in block.lines}
    assert errors == {(): 10.0, ("made long-tailed",): 20.0}


def test_noise_and_coarse_labels_are_settings_of_their_own(tmp_path):
    noise = ("--data.label_noise", "symmetric", "--data.label_noise_rate", "0.4")
    write_record(tmp_path / "clean", "--config", "cifar100_lt", error=1.0)
    write_record(tmp_path / "noisy", "--config", "cifar100_lt", *noise, error=2.0)
    write_record(tmp_path / "coarse", "--config", "cifar100_lt", "--data.labels", "coarse", error=3.0)
    titles = {block.title: [line for line in block.lines if line.cells] for block in blocks_of(tmp_path)}
    assert {title: [line.cells[100.0].mean for line in lines] for title, lines in titles.items() if lines} == {
        "CIFAR-10-LT": [18.13],
        "CIFAR-100-LT": [1.0],
        "CIFAR-100-LT, 40 % wrong labels (symmetric)": [2.0],
        "CIFAR-100-LT, 20 superclasses": [3.0],
    }
    assert not any(line.differences for lines in titles.values() for line in lines)


def test_a_preset_on_other_data_is_told_apart_by_its_settings(tmp_path):
    write_record(tmp_path / "a", "--config", "digits_lt", "--data.source", "cifar10", "--model.name", "resnet32", error=10.0)
    write_record(tmp_path / "b", *OFFICIAL, "--data.source", "cifar100", error=60.0)
    noisy, cifar100 = (block for block in blocks_of(tmp_path) if any(line.cells and line.variant for line in block.lines))
    assert (noisy.title, cifar100.title) == ("CIFAR-10-LT, 40 % wrong labels (symmetric)", "CIFAR-100-LT")
    (line,) = noisy.lines
    assert "model.name resnet32 (preset: small)" in line.differences
    assert cifar100.lines[0].differences == ()


def test_trials_of_a_search_are_no_rows_of_the_table(tmp_path):
    write_record(tmp_path / "run", *OFFICIAL, error=10.0)
    write_record(tmp_path / "search" / "trials" / "0-0", *OFFICIAL, error=1.0, seed=1)
    (tmp_path / "search" / "search.yaml").write_text("{}")
    experiments, problems, _ = load_experiments([tmp_path])
    assert problems == []
    assert [experiment.record.path.parent.name for experiment in experiments] == ["run"]
    assert len(load_experiments([tmp_path / "search" / "trials"])[0]) == 1  # asked for by name


def test_a_local_copy_and_a_repeated_seed_count_once(tmp_path):
    for root in ("committed", "local"):
        write_record(tmp_path / root / "run", *OFFICIAL, error=10.0)
    write_record(tmp_path / "local" / "again", *OFFICIAL, error=30.0)
    loaded = load_experiments([tmp_path / "committed", tmp_path / "local"])
    assert [experiment.record.path for experiment in loaded.experiments] == [tmp_path / "committed" / "run" / "ot_meta"]
    assert loaded.problems == []
    (repeated,) = loaded.repeated  # a copy is nothing to speak of
    assert "again" in repeated
    (line,) = loaded.summary()
    assert line.startswith("1 record repeats")


def test_broken_records_get_a_line_each_and_the_rest_is_shown(tmp_path):
    write_record(tmp_path / "whole", *OFFICIAL, error=10.0)
    for name, text in (("empty", ""), ("cut", '{"row": "ot'), ("other", '{"row": "ot_meta"}'), ("unknown", None)):
        folder = write_record(tmp_path / name, *OFFICIAL, variant="ot" if name == "unknown" else "ot_meta", seed=5)
        if text is not None:
            (folder / "result.json").write_text(text)
        else:
            (folder / "result.json").write_text((folder / "result.json").read_text().replace('"row": "ot"', '"row": "new"'))
    partial = write_record(tmp_path / "partial", *OFFICIAL, seed=6)
    (partial / "result.json").unlink()  # still training: no record yet, no complaint
    experiments, problems, _ = load_experiments([tmp_path, tmp_path / "nowhere"])
    assert [experiment.record.path.parent.name for experiment in experiments] == ["whole"]
    assert len(problems) == 4
    for problem, name in zip(sorted(problems), ("cut", "empty", "other", "unknown"), strict=True):
        assert str(tmp_path / name) in problem
        assert "left out" in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    "damage",
    [
        {"test": {"error": "x"}},
        {"test": {"error": float("nan")}},
        {"test": {"error": 1.0, "class_error": [1.0]}},
        {"seed": None},
        {"row": ["ot"]},
        {"model": 3},
        {"weights": {"class_mass": [0.5, "x"]}},
        {"class_names": []},
        {"true_sizes": 5},
        {"confusion": [[1, 2], [3]]},
        {"best_epoch_test_error": {}},
    ],
)
def test_a_damaged_figure_costs_its_record_only(tmp_path, damage):
    write_record(tmp_path / "whole", *OFFICIAL, error=10.0)
    write_record(tmp_path / "damaged", *OFFICIAL, seed=1)
    path = tmp_path / "damaged" / "ot_meta" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    experiments, (problem,), _ = load_experiments([tmp_path])
    assert len(experiments) == 1
    assert f"result.json: {next(iter(damage))}" in problem
    assert "\n" not in problem


def test_the_epochs_of_a_stage_1_from_a_file_are_those_of_its_run(tmp_path):
    write_record(tmp_path / "first", *SHORT, variant="stage1", error=40.0)
    later = write_record(
        tmp_path / "later", "--config", "cifar10_lt", "--stage1.checkpoint", "runs/first/stage1/model.safetensors", variant="ot"
    )
    settings = yaml.safe_load((later / "config.yaml").read_text())
    del settings["run"]["preset"]  # written before records held the true number themselves
    (later / "config.yaml").write_text(yaml.safe_dump(settings))
    line = lines_of(blocks_of(tmp_path)[0])["cifar10_lt", "OT"]
    assert (line.epochs, line.short) == ("24+20", True)
    (tmp_path / "first" / "stage1" / "result.json").unlink()
    line = lines_of(blocks_of(tmp_path)[0])["cifar10_lt", "OT"]
    assert line.epochs == "?+20"
    assert line.differences == ("stage 1 from a file, its epochs not recorded",)


def test_no_records_give_a_table_that_says_so(tmp_path):
    text = formats.markdown(blocks_of(tmp_path))
    assert "|  | method |" in text
    assert "| official | OT + meta | - | - | - | - | - | - | - |" in text


def test_the_published_numbers_are_read():
    numbers = read_published(ROOT / "otrw" / "analysis" / "reference" / "published.csv")
    assert {number.backbone for number in numbers} == {"resnet32-w16"}
    assert (
        Published("OT re-weighting (paper)", "target", "resnet32-w16", "cifar10", 100.0, 18.13, None, "", numbers[0].source)
        in numbers
    )


def script(*arguments, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("name", "options"),
    [("README.md", ["--dataset", "digits"]), ("analysis/RESULTS.md", ["--all", "--against", "published"])],
    ids=["README", "RESULTS"],
)
def test_the_pages_show_the_committed_records(tmp_path, name, options):
    text = (ROOT / name).read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(text, encoding="utf-8")
    done = script("analysis/make_table.py", "--write", str(copy), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.read_text(encoding="utf-8") == text, f"run: python analysis/make_table.py --write {name} {' '.join(options)}"


def test_the_command_loads_no_torch(root):
    code = (
        "import sys, runpy; sys.argv = ['make_table.py', sys.argv[1]]; runpy.run_path('analysis/make_table.py', "
        "run_name='__main__'); print(sorted({'torch', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = script("-c", code, str(root))
    assert done.returncode == 0
    assert "18.0 (1.0)" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analysis/results", "--metric", "fewest"], "error: --metric must be one of"),
        (["analysis/results", "--preset", "weak"], "error: --preset must be one of"),
        (["nowhere"], "error: records must be in a folder, got 'nowhere'"),
        (["--write", "pyproject.toml"], "error: pyproject.toml must hold <!-- table: begin -->"),
        (["analysis/results", "--format", "csv", "--output", "nowhere/table.csv"], "error: --output must be writable"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, message):
    done = script("analysis/make_table.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


class Cells(HTMLParser):
    """Texts of the cells of each table variant."""

    def __init__(self):
        super().__init__()
        self.variants, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.variants.append([])
        if tag in ("td", "th"):
            self.variants[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.variants[-1][-1] += data


def test_a_record_that_names_no_preset_belongs_to_the_one_with_the_same_method(tmp_path):
    config = to_dict(variant_config(parse_config(["--config", "official", "--data.imbalance_factor", "100"]), "stage1"))
    del config["run"]["preset"]
    name, _ = _preset(config, "stage1", _own(config))
    assert name == "official"
    config["stage1"]["epochs"] = 24
    assert _preset(config, "stage1", _own(config))[0] == "cifar10_lt"


def _own(config):
    axes = {f"data.{axis}" for axis in AXES}
    return {path: value for path, value in decisive_settings(config).items() if path not in axes}


def test_a_dash_everywhere_says_why(tmp_path):
    test = {"error": 10.0, "few_error": None}
    write_record(tmp_path / "run", *OFFICIAL, test=test, true_sizes=[4990, 24])
    text = formats.markdown(blocks_of(tmp_path, metric="few", datasets=["cifar10"]))
    assert "No values: no class has fewer than 20 training images; classes have 24 to 4990." in text


def test_local_runs_win_over_committed_ones_and_one_line_says_how_many_repeat(tmp_path, monkeypatch, capsys):
    from otrw.commands import table

    monkeypatch.setattr(table, "RESULTS", tmp_path / "committed")
    for name, error in (("committed", 10.0), ("local", 20.0)):
        for variant in ("ot_meta", "ot", "class_balanced_meta"):
            write_record(tmp_path / name / "run", *OFFICIAL, variant=variant, error=error)
    roots = [str(tmp_path / "committed"), str(tmp_path / "local")]
    table.main([*roots, "--format", "markdown"])
    printed = capsys.readouterr()
    assert "| 20.0 |" in printed.out
    assert "| 10.0 |" not in printed.out
    assert printed.err == "3 records repeat a method and seed and are counted once; --verbose lists them\n"
    table.main([*roots, "--verbose"])
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_precision_stands_in_a_footnote_and_is_never_averaged_over(tmp_path):
    write_record(tmp_path / "a", *OFFICIAL, error=10.0, seed=0)
    other = write_record(tmp_path / "b", *OFFICIAL, error=20.0, seed=1)
    (other / "environment.json").write_text('{"precision": "bf16"}')
    lines = [line for line in blocks_of(tmp_path)[0].lines if line.name == "OT + meta"]
    assert [(line.cells[100.0].mean, line.differences) for line in lines] == [
        (10.0, ()),
        (20.0, ("trained in bf16 (others: float32)",)),
    ]


def test_the_short_view_has_one_row_a_method_whatever_the_precision(tmp_path):
    """Cells of one row may be computed in several ways; each cell in one, and the footnote says which."""
    bf16 = json.dumps({"commit": "0" * 40, "precision": "bf16"})
    for factor, error in ((100, 18.0), (50, 15.0)):
        folder = write_record(tmp_path / f"if{factor}", *OFFICIAL, "--data.imbalance_factor", str(factor), error=error)
        if factor == 50:
            (folder / "environment.json").write_text(bf16)
    again = write_record(tmp_path / "again", *OFFICIAL, error=30.0, seed=1)  # the first cell once more, in another precision
    (again / "environment.json").write_text(bf16)
    write_record(tmp_path / "short", *OFFICIAL, "--stage2.epochs", "9", error=1.0)
    write_record(tmp_path / "special", *OFFICIAL, "--ot.epsilon", "0.7", error=2.0)
    experiments = load_experiments([tmp_path]).experiments
    selected = main_results(experiments, lambda _: False)
    assert (selected.num_special, selected.num_repeated) == (2, 1)
    (line,) = [line for line in make_blocks(selected.experiments)[0].lines if line.name == "OT + meta"]
    assert {factor: cell.mean for factor, cell in line.cells.items()} == {100.0: 18.0, 50.0: 15.0}
    assert line.differences == ("trained in bf16 (others: float32), at 50",)


def test_ones_own_short_and_special_runs_are_shown_and_win(tmp_path):
    own = write_record(tmp_path / "own", *OFFICIAL, "--run.precision", "bf16", error=30.0)
    (own / "environment.json").write_text(json.dumps({"commit": None, "precision": "bf16"}))
    write_record(tmp_path / "short", *OFFICIAL, "--stage2.epochs", "9", error=1.0)
    write_record(tmp_path / "committed", *OFFICIAL, error=18.0)
    experiments = load_experiments([tmp_path]).experiments
    selected = main_results(experiments, lambda experiment: "committed" not in str(experiment.record.path))
    lines = make_blocks(selected.experiments)[0].lines
    assert sorted(cell.mean for line in lines for cell in line.cells.values() if line.competes) == [1.0, 30.0]


@pytest.mark.parametrize("name", ["other data named cifar10 (3 classes, 30 test images)"])
def test_other_images_under_the_papers_name_stand_in_a_block_of_their_own(tmp_path, name):
    write_record(tmp_path / "run", *OFFICIAL, error=0.1, dataset=name)
    blocks = make_blocks(load_experiments([tmp_path]).experiments)
    assert [block.title for block in blocks] == ["CIFAR-10-LT", "CIFAR-100-LT", name]
    assert not any(cell for line in blocks[0].lines for cell in line.cells.values())


def test_a_data_set_goes_by_its_name_only_with_its_classes_and_test_images():
    assert data_set_name("cifar10", is_coarse=False, num_classes=10, num_test=10_000) == "cifar10"
    assert data_set_name("cifar100", is_coarse=True, num_classes=20, num_test=10_000) == "cifar100_coarse"
    other = data_set_name("cifar10", is_coarse=False, num_classes=3, num_test=30)
    assert other == "other data named cifar10 (3 classes, 30 test images)"
    assert data_set_name("folder", is_coarse=False, num_classes=3, num_test=30) == "folder"
