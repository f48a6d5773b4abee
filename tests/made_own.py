"""Small data sets of one's own, for tests: the made-up CIFAR of made_parquet written out as files."""

import numpy as np
from made_parquet import image_cells, random_images, write_table
from PIL import Image

NAMES = ("ant", "bee", "cow", "dog")
NUM_PER_CLASS = {"train": 14, "test": 3}


def labels_of(part):
    """Labels in an order that is not by class."""
    labels = np.repeat(np.arange(len(NAMES)), NUM_PER_CLASS[part])
    return np.random.default_rng(len(labels)).permutation(labels).tolist()


def images_of(part):
    return random_images(len(labels_of(part)), seed=len(part))


def write_cifar(root):
    """Parquet files of the hub's layout, below root/cifar10."""
    for part in NUM_PER_CLASS:
        columns = {"img": image_cells(images_of(part)), "label": labels_of(part)}
        write_table(root / "cifar10" / f"{part}-00000-of-00001.parquet", columns, {"label": NAMES})
    return root


def write_image(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def write_folder(root, part_of_row=None):
    """The same as root/PART/CLASS/NUMBER.png; part_of_row {part: {row: name of its folder, or None to leave it out}}."""
    for part in NUM_PER_CLASS:
        for row, (image, label) in enumerate(zip(images_of(part), labels_of(part), strict=True)):
            folder = part if part_of_row is None else part_of_row[part].get(row)
            if folder is not None:
                write_image(root / folder / NAMES[label] / f"{row:05d}.png", image)
    return root


def write_classes(root, sizes, seed=0, size=4):
    """root/CLASS/NUMBER.png, so many images a class."""
    images = iter(random_images(sum(sizes.values()), seed, size))
    for name, number in sizes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(number):
            write_image(root / name / f"{name}{row:04d}.png", next(images))
    return root


def write_verdicts(path, rows):
    path.write_text("\n".join(["identity,label,verdict,remark", *(",".join((*row, "x")) for row in rows)]), encoding="utf-8")
    return str(path)
