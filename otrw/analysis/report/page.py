"""The page: what was trained, how well, on what settings, and what the weights did to the images."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from otrw.analysis.report.gallery import data_uri, gallery, picture_source, weighted
from otrw.analysis.report.style import STYLE
from otrw.analysis.report.svg import Series, line_chart
from otrw.analysis.table import dataset_title, net_name
from otrw.analysis.variant_styles import BLACK, STYLES
from otrw.config.variants import BY_TRANSPORT, TITLES
from otrw.errors import UserError
from otrw.records.experiments import Experiment, label
from otrw.records.fingerprint import decisive_settings
from otrw.records.ledger import read_lines

MOST_GALLERIES = 3
"""Variants whose images are shown."""
MOST_CLASSES_AS_TABLE = 20
FIGURES = (
    ("error", "error"),
    ("balanced_error", "balanced"),
    ("many_error", "many"),
    ("medium_error", "medium"),
    ("few_error", "few"),
    ("ece", "ECE"),
)


def make_page(experiments: Sequence[Experiment]) -> tuple[str, list[str]]:
    """The page of these records, stage 1 first, and a line for everything that could not be shown."""
    runs = list(dict.fromkeys(experiment.record.path.parent.name for experiment in experiments))
    order = list(TITLES)
    experiments = sorted(
        experiments, key=lambda experiment: (runs.index(experiment.record.path.parent.name), order.index(experiment.variant))
    )
    names = {experiment.record.path: _name(experiment, len(runs)) for experiment in experiments}
    problems: list[str] = []
    sections = [
        ("summary", "Summary", _summary(experiments, names)),
        ("gallery", "Weights and images", _galleries(experiments, names, problems)),
        ("curves", "Curves", _curves(experiments, names)),
        ("classes", "Classes", _classes(experiments, names)),
        ("confusion", "Confusion", _confusions(experiments, names)),
        ("settings", "Settings", _settings(experiments, names)),
    ]
    shown = [section for section in sections if section[2]]
    title = " and ".join(dict.fromkeys(_setting(experiment) for experiment in experiments))
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in shown)
    body = "".join(f'<section id="{key}"><h2>{name}</h2>{content}</section>' for key, name, content in shown)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><header><h1>{html.escape(title)}</h1><p>{_headline(experiments, runs)}</p><nav>{links}</nav></header>\n"
        f"<main>{body}</main></body></html>\n"
    )
    return page, problems


def _summary(experiments: Sequence[Experiment], names: Mapping[Path, str]) -> str:
    heads = [
        "",
        *(title for _, title in FIGURES),
        "epochs",
        "best test epoch",
        "effective samples",
        "wrong-label mass",
        "AUROC",
    ]
    rows, facts = [], [_weight_facts(experiment) for experiment in experiments]
    best = min(
        (
            experiment.record.result["test"].get("error", np.inf)
            for experiment in experiments
            if not experiment.variant.startswith("oracle")
        ),
        default=None,
    )
    for experiment, fact in zip(experiments, facts, strict=True):
        test = experiment.record.result["test"]
        cells = [_number(test.get(key)) for key, _ in FIGURES]
        if test.get("error") == best and not experiment.variant.startswith("oracle"):
            cells[0] = f"<b>{cells[0]}</b>"
        short = ' <span class="mark">short</span>' if experiment.short else ""
        cells += [html.escape(experiment.epochs) + short, _number(experiment.record.result.get("best_epoch_test_error")), *fact]
        rows.append([_key(experiment) + html.escape(names[experiment.record.path]), *cells])
    unused = {number for number in range(1, len(heads)) if all(row[number] == "-" for row in rows)}
    kept = [number for number in range(len(heads)) if number not in unused]
    table = _table([heads[number] for number in kept], [[row[number] for number in kept] for row in rows])
    notes = [
        "Test figures in percent, of the last epoch; best test epoch: the lowest test error of any epoch, not a fair figure."
    ]
    if 10 not in unused:
        notes.append(
            "Wrong-label mass: share of all weight on wrongly labelled samples, in percent; AUROC: how well low weights "
            "find them inside a class."
        )
    differing = {line for experiment in experiments for line in experiment.differences}
    if differing:
        notes.append("Not as in the preset: " + "; ".join(sorted(differing)) + ".")
    return table + "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def _curves(experiments: Sequence[Experiment], names: Mapping[Path, str]) -> str:
    charts = []
    for stage in ("stage1", "stage2"):
        chosen = [experiment for experiment in experiments if (experiment.variant == "stage1") == (stage == "stage1")]
        for part, key, title in (("test", "error", "test error (%)"), ("train", "loss", "training loss")):
            series = [_series(experiment, names, part, key) for experiment in chosen]
            chart = line_chart(series, "epoch", title)
            if chart:
                name = "Stage 1" if stage == "stage1" else "Stage 2"
                charts.append(f'<div class="chart"><h3>{name}: {title}</h3>{chart}</div>')
    keys = "".join(f"<span>{_key(experiment)}{html.escape(names[experiment.record.path])}</span>" for experiment in experiments)
    has_rounds = any((experiment.record.config.get("stage2") or {}).get("rounds", 1) > 1 for experiment in experiments)
    note = '<p class="note">Rounds of stage 2 follow each other.</p>' if has_rounds else ""
    return f'<div class="keys">{keys}</div>{note}<div class="charts">{"".join(charts)}</div>' if charts else ""


def _classes(experiments: Sequence[Experiment], names: Mapping[Path, str]) -> str:
    """Error of each class in each variant, as a bar and a number."""
    experiments = [experiment for experiment in experiments if experiment.record.result["test"].get("class_error")]
    if not experiments:
        return ""
    result = experiments[0].record.result
    classes = result.get("class_names") or [str(number) for number in range(len(result["test"]["class_error"]))]
    experiments = [experiment for experiment in experiments if experiment.record.result.get("class_names", classes) == classes]
    sizes = result.get("true_sizes") or [None] * len(classes)
    rows = []
    for number, name in enumerate(classes):
        cells = [_bar(experiment.record.result["test"]["class_error"][number], experiment) for experiment in experiments]
        rows.append([html.escape(str(name)), _number(sizes[number], 0), *cells])
    table = _table(["class", "training samples", *(names[experiment.record.path] for experiment in experiments)], rows)
    content = f'<p class="note">Test error in percent.</p>{table}'
    return (
        content
        if len(classes) <= MOST_CLASSES_AS_TABLE
        else f"<details><summary>{len(classes)} classes</summary>{content}</details>"
    )


def _confusions(experiments: Sequence[Experiment], names: Mapping[Path, str]) -> str:
    """Before (stage 1) and after (the main variant) side by side, the others folded away."""
    found = [experiment for experiment in experiments if experiment.record.result.get("confusion")]
    first = [experiment for variant in ("stage1", *BY_TRANSPORT) for experiment in found if experiment.variant == variant]
    shown = [experiment for experiment in first if experiment.variant == "stage1"] + [
        experiment for experiment in first if experiment.variant != "stage1"
    ][:1]
    others = [experiment for experiment in found if experiment not in shown]
    parts = [_confusion(experiment, names[experiment.record.path]) for experiment in shown]
    note = "Rows: true class; columns: prediction; percent of the true class."
    content = f'<p class="note">{note}</p><div class="matrices">{"".join(parts)}</div>'
    if others:
        rest = "".join(_confusion(experiment, names[experiment.record.path]) for experiment in others)
        content += f'<details><summary>{len(others)} more</summary><div class="matrices">{rest}</div></details>'
    return content if found else ""


def _confusion(experiment: Experiment, name: str) -> str:
    counts = np.asarray(experiment.record.result["confusion"], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # of the true class
    title = f"<h3>{html.escape(name)}</h3>"
    if len(counts) > MOST_CLASSES_AS_TABLE:
        shade = (255 * (1 - np.sqrt(shares))).astype(np.uint8)  # square root: small shares stay visible
        image = data_uri(np.stack([shade, 255 - (255 - shade) // 2, np.full_like(shade, 255)], -1))
        return f'<div>{title}<img class="matrix" src="{image}" alt="confusion matrix of {html.escape(name)}"></div>'
    names = [str(one) for one in experiment.record.result.get("class_names") or range(len(counts))]
    heads = "".join(f'<th scope="col"><span>{html.escape(one)}</span></th>' for one in names)
    rows = []
    for number, one in enumerate(names):
        cells = []
        for other, share in enumerate(shares[number]):
            color = "0,114,178" if number == other else "213,94,0"
            text = f"{100 * share:.0f}" if share >= 0.005 else ""
            cells.append(f'<td style="background:rgba({color},{0.75 * share:.2f})">{text}</td>')
        rows.append(f'<tr><th scope="row">{html.escape(one)}</th>{"".join(cells)}</tr>')
    kind = "confusion turned" if max(map(len, names)) > 3 else "confusion"
    table = f'<table class="{kind}"><thead><tr><td></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div>{title}<div class="scroll">{table}</div></div>'


def _galleries(experiments: Sequence[Experiment], names: Mapping[Path, str], problems: list[str]) -> str:
    there = [variant for variant in BY_TRANSPORT if any(experiment.variant == variant for experiment in experiments)]
    chosen = [experiment for variant in there[:MOST_GALLERIES] for experiment in experiments if experiment.variant == variant]
    parts: list[str] = []
    pictures: dict[str, Callable[[int], str] | None] = {}
    for experiment in chosen:
        try:
            columns = weighted(experiment)
            if columns is None:
                problems.append(
                    f"{experiment.record.path}: no weights.parquet (it stays in the local run's folder); no images shown"
                )
                continue
            if parts and len(experiment.record.result.get("class_names") or ()) > MOST_CLASSES_AS_TABLE:
                continue  # one variant's images of a hundred classes are megabytes already
            source = json.dumps(experiment.record.config["data"], sort_keys=True)
            if source not in pictures:
                pictures[source] = picture_source(experiment.record)
            picture = pictures[source]
            if picture is None:
                continue  # embeddings
            content = gallery(experiment, columns, picture)
        except (UserError, KeyError) as error:
            problems.append(f"{experiment.record.path}: no images shown ({error})")
            continue
        name = html.escape(names[experiment.record.path])
        parts.append(f"<details{' open' if not parts else ''}><summary>{name}</summary>{content}</details>")
    if not parts:
        return (
            '<p class="note">No images: the weights of single samples are in the local run\'s folder only.</p>'
            if chosen
            else ""
        )
    return (
        '<p class="note">The training images with the largest and smallest weights under each given label (mean weight 1). '
        f"A frame: the given label is wrong, and the name below is the true one.</p>{''.join(parts)}"
    )


def _settings(experiments: Sequence[Experiment], names: Mapping[Path, str]) -> str:
    parts = []
    main = next(
        (experiment for variant in BY_TRANSPORT for experiment in experiments if experiment.variant == variant),
        experiments[-1],
    )
    rows = [
        [f"<code>{html.escape(path)}</code>", html.escape(str(value))]
        for path, value in decisive_settings(main.record.config).items()
    ]
    title = f"{html.escape(names[main.record.path])}: what differs from the defaults"
    parts.append(f"<h3>{title}</h3>{_table(['setting', 'value'], rows, numbers=False)}")
    for experiment in experiments:
        text = yaml.safe_dump(experiment.record.config, sort_keys=False)
        facts = yaml.safe_dump(experiment.record.environment, sort_keys=False)
        parts.append(
            f"<details><summary>{html.escape(names[experiment.record.path])}: config.yaml and environment</summary>"
            f"<pre>{html.escape(text)}</pre><pre>{html.escape(facts)}</pre></details>"
        )
    return "".join(parts)


def _headline(experiments: Sequence[Experiment], runs: Sequence[str]) -> str:
    experiment = experiments[0]
    environment = experiment.record.environment
    commit = str(environment.get("commit") or "")[:10]
    facts = [
        net_name(experiment.record.result.get("model") or {}),
        f"preset {experiment.preset}",
        "seed " + ", ".join(str(seed) for seed in sorted({one.seed for one in experiments})),
        f"{environment.get('world_size', 1)} x {environment.get('device', '?')}",
        f"commit {commit}{' (with changes)' if environment.get('dirty') else ''}" if commit else "",
        ", ".join(runs[:3]) + (f" and {len(runs) - 3} more runs" if len(runs) > 3 else ""),
    ]
    return " &middot; ".join(html.escape(fact) for fact in facts if fact)


def _setting(experiment: Experiment) -> str:
    return f"{dataset_title(experiment.setting)}, imbalance factor {experiment.imbalance_factor:g}"


def _name(experiment: Experiment, num_runs: int) -> str:
    return label(experiment.variant) if num_runs == 1 else f"{experiment.record.path.parent.name}: {label(experiment.variant)}"


def _weight_facts(experiment: Experiment) -> list[str]:
    weights = experiment.record.result.get("weights") or {}
    mass = weights.get("wrong_label_mass")
    facts = [_number(weights.get("effective_samples"), 0), _number(None if mass is None else 100 * mass)]
    return [*facts, _number(weights.get("wrong_label_auroc"), 2)]


def _series(experiment: Experiment, names: Mapping[Path, str], part: str, key: str) -> Series:
    points = [
        (number, float(line[part][key]))
        for number, line in enumerate(read_lines(experiment.record.path / "metrics.jsonl"), start=1)
        if isinstance((line.get(part) or {}).get(key), int | float)
    ]
    x, y = np.array([point[0] for point in points]), np.array([point[1] for point in points])
    line = STYLES[experiment.variant].line
    dash = "" if isinstance(line, str) else " ".join(str(3 * length) for length in line[1])
    return Series(names[experiment.record.path], x, y, _color(experiment), dash)


def _color(experiment: Experiment) -> str:
    color = STYLES[experiment.variant].color
    return "currentColor" if color == BLACK else color


def _key(experiment: Experiment) -> str:
    return f'<i style="background:{_color(experiment)}"></i>'


def _bar(value: float | None, experiment: Experiment) -> str:
    if value is None:
        return "-"
    bar = f'<i style="width:{value:.1f}%;background:{_color(experiment)}"></i>'
    return f'<span class="bar">{bar}</span><span class="value">{value:.1f}</span>'


def _number(value: object, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    kind = ' class="number"' if numbers else ""
    names = "".join(f'<th scope="col"{kind if number else ""}>{html.escape(name)}</th>' for number, name in enumerate(heads))
    lines = []
    for row in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{row[0]}</th>{cells}</tr>')
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
