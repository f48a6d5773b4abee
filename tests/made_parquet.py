"""Small data sets in Parquet files of the hub's layout, for tests."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from otrw.data.sources import load_source

ROOT = Path(__file__).resolve().parents[1]
FINE_NAMES = ("apple", "bear", "chair", "clock", "cup", "fox")
COARSE_NAMES = ("things", "living")
COARSE_OF_FINE = (1, 1, 0, 0, 0, 1)
LABELS = {"train": [0, 1, 2, 3, 4, 5, 0, 2], "test": [5, 4, 3, 2, 1, 0]}


def cifar_folder():
    candidates = (os.environ.get("OTRW_DATA"), ROOT / "data", ROOT / ".." / "shared" / "data")
    for candidate in candidates:
        if candidate and any((Path(candidate) / "cifar100").glob("train-*.parquet")):
            return Path(candidate)
    return None


def random_images(num_images, seed, size=4):
    return np.random.default_rng(seed).integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)


def png_bytes(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_table(path, columns, names=None):
    table = pyarrow.table(columns)
    if names is not None:
        features = {column: {"names": list(values), "_type": "ClassLabel"} for column, values in names.items()}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def image_cells(images):
    return [{"bytes": png_bytes(image), "path": None} for image in images]


def write_cifar10(root, names=FINE_NAMES):
    """Two training files and a test file; returns the images."""
    images = {part: random_images(len(labels), seed) for seed, (part, labels) in enumerate(LABELS.items())}
    metadata = {"label": names} if names else None
    for file, rows in enumerate((slice(0, 5), slice(5, 8))):
        write_table(
            root / "cifar10" / f"train-0000{file}-of-00002.parquet",
            {"img": image_cells(images["train"][rows]), "label": LABELS["train"][rows]},
            metadata,
        )
    write_table(
        root / "cifar10" / "test-00000-of-00001.parquet",
        {"img": image_cells(images["test"]), "label": LABELS["test"]},
        metadata,
    )
    return images


def write_cifar100(root, labels=None, size=4):
    labels = labels or LABELS
    images = {part: random_images(len(values), seed, size) for seed, (part, values) in enumerate(labels.items())}
    for part, values in labels.items():
        write_table(
            root / "cifar100" / f"{part}-00000-of-00001.parquet",
            {
                "img": image_cells(images[part]),
                "fine_label": values,
                "coarse_label": [COARSE_OF_FINE[label] for label in values],
            },
            {"fine_label": FINE_NAMES, "coarse_label": COARSE_NAMES},
        )
    return images


def load(root, source="cifar10", layout="auto", cache=""):
    return load_source(source, root=str(root), layout=layout, download=False, cache=str(cache))
