"""The images with the largest and the smallest weights of each class, as HTML."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from otrw.analysis.report.svg import histogram
from otrw.analysis.thumbnails import thumbnail_uri
from otrw.analysis.variant_styles import BLUE, VERMILLION
from otrw.config.data import ColumnsConfig, DataConfig
from otrw.errors import UserError
from otrw.records.experiments import Experiment
from otrw.records.ledger import Record, read_table

NUM_SHOWN = 6
NUM_SHOWN_OF_MANY = 3  # with more classes than this many images a class make a page of several megabytes
MANY_CLASSES = 20
THUMBNAIL_SIDE = 160  # pixels


def weighted(experiment: Experiment) -> dict[str, np.ndarray] | None:
    """The record's weights.parquet; None where it is not there, as in committed records."""
    return read_table(experiment.record, "weights.parquet")


def picture_source(record: Record, side: int = THUMBNAIL_SIDE) -> Callable[[int], str] | None:
    """From a row of the data set to a small picture of it as a data: URI; None where samples are embeddings.

    Args:
        record: of a variant; its settings say where the data set is.
        side: of the picture, in pixels.

    Raises:
        UserError: where the data set is not there any more, or is another one.
    """
    from otrw.data.pictures import has_pictures, picture
    from otrw.data.sources import load_raw  # loads torch: only pages with images need it

    raw = load_raw(_data_settings(record.config["data"]))
    trained_on = (record.result.get("data") or {}).get("files_hash", raw.files_hash)
    if trained_on != raw.files_hash:
        raise UserError(f"data.root must hold what {record.path} was trained on, but its files have changed since")
    if not has_pictures(raw.inputs):
        return None

    def of_row(row: int) -> str:
        if row >= len(raw.inputs):
            raise UserError(f"{record.path}: weights.parquet names image {row} of {len(raw.inputs)}; other data")
        return thumbnail_uri(picture(raw.inputs, row), side)

    return of_row


def _data_settings(written: Mapping) -> DataConfig:
    """The settings of a record's data, as far as reading them goes; nothing is downloaded for a page."""
    passed_over = ("augment", "columns", "download")
    known = {key: value for key, value in written.items() if key in DataConfig.__dataclass_fields__ and key not in passed_over}
    known |= {key: tuple(known[key]) for key in ("mean", "std") if key in known}
    try:
        return DataConfig(**known, columns=ColumnsConfig(**(written.get("columns") or {})))
    except TypeError as error:
        raise UserError(f"config.yaml must hold settings of data that can be read ({str(error)[:120]})") from None


def gallery(experiment: Experiment, columns: Mapping[str, np.ndarray], picture: Callable[[int], str]) -> str:
    """A histogram of the weights, then a strip of images a class.

    Args:
        experiment: the variant.
        columns: of its weights.parquet.
        picture: row in the data set -> data: URI.

    Raises:
        UserError: where the columns are of other data.
    """
    index, given = columns["index"], columns["given_label"]
    true = columns.get("true_label", given)
    weights = columns["weight"] / columns["weight"].mean()
    names = [str(name) for name in experiment.record.result.get("class_names") or []]
    names = names or [str(label) for label in range(int(given.max()) + 1)]
    classes = np.unique(given)
    shown = NUM_SHOWN if len(classes) <= MANY_CLASSES else NUM_SHOWN_OF_MANY
    knows_truth = (experiment.record.result.get("data") or {}).get("knows_truth", True)
    parts = [_histogram(weights, given != true if knows_truth else None), '<div class="gallery">']
    for label in classes:
        members = np.flatnonzero(given == label)
        order = members[np.argsort(-weights[members], kind="stable")]
        largest = order[:shown]
        smallest = order[shown:][-shown:][::-1]
        wrong = int((true[members] != label).sum())
        note = f"{len(members)} images" + (f", {wrong} of them wrong" if wrong else "")
        parts.append(f'<section class="class"><h4>{html.escape(names[label])} <small>{note}</small></h4>')
        for title, chosen in (("largest", largest), ("smallest", smallest)):
            figures = [_figure(picture(int(index[n])), weights[n], names[label], names[true[n]]) for n in chosen]
            if figures:
                parts.append(f'<div class="strip"><span>{title}</span>{"".join(figures)}</div>')
        parts.append("</section>")
    parts.append("</div>")
    return "".join(parts)


def data_uri(image: np.ndarray) -> str:
    """A uint8 image as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(image: str, weight: float, given: str, true: str) -> str:
    is_wrong = given != true
    note = f"<em>{html.escape(true)}</em>" if is_wrong else ""
    text = html.escape(f"labelled {given}" + (f", really {true}" if is_wrong else "") + f", weight {weight:.2f}")
    kind = ' class="wrong"' if is_wrong else ""
    return f'<figure{kind}><img src="{image}" alt="{text}" title="{text}"><figcaption>{weight:.2f}{note}</figcaption></figure>'


def _histogram(weights: np.ndarray, wrong: np.ndarray | None) -> str:
    """Of all samples, in two colours where it is known which labels are wrong."""
    groups: Sequence[tuple[str, np.ndarray, str]] = [("all samples", weights, BLUE)]
    if wrong is not None:
        groups = [("right labels", weights[~wrong], BLUE)]
    if wrong is not None and wrong.any():
        groups = [*groups, ("wrong labels", weights[wrong], VERMILLION)]
    keys = "".join(f'<span><i style="background:{color}"></i>{name} ({len(found)})</span>' for name, found, color in groups)
    chart = histogram(groups, "weight (mean 1)")
    return f'<div class="chart narrow"><div class="keys">{keys}</div>{chart}</div>'
