"""Samples that a loaded net is asked about are prepared as evaluation prepared those of its run."""

import numpy as np
import pytest
import torch
from PIL import Image

from otrw.data.decoding import decoded
from otrw.data.files import ImageFiles
from otrw.data.view import ImageTransform
from otrw.errors import UserError
from otrw.models.library_nets import NetInput
from otrw.training.model_file import SampleTransform

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 61.0, 62.0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 61), (40, 77), (36, 36)])
def test_images_in_files_are_cropped_and_resized_as_evaluation_does(tmp_path, size, interpolation):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    view = NetInput(32, 36, (), (), interpolation)
    evaluation = ImageTransform(torch.tensor(MEAN), torch.tensor(STD), None, view)
    files = ImageFiles(np.array([str(path)], dtype=object), np.array(["image"], dtype=object))
    pixels = torch.from_numpy(decoded(files, 0, evaluation.cropping, None).copy())[None]
    expected = evaluation.of_decoded(pixels, torch.zeros(1, dtype=torch.int64), 0)[0]
    transform = SampleTransform(MEAN, STD, None, view, in_files=True)
    assert torch.equal(transform(path), expected)
    assert transform.prepared_shape == tuple(expected.shape)


def test_embeddings_are_standardised_and_of_their_length():
    transform = SampleTransform([1.0, 2.0], [2.0, 4.0], [2], None, in_files=False)
    assert transform([3.0, 10.0]).tolist() == [1.0, 2.0]
    assert transform.prepared_shape == (2,)
    with pytest.raises(UserError, match="an embedding of 2 numbers, got shape"):
        transform([1.0, 2.0, 3.0])


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    transform = SampleTransform(MEAN, STD, [8, 8, 3], None, in_files=False)
    (tmp_path / "text.png").write_text("no image")
    for sample, message in (
        (np.zeros((8, 8)), "uint8"),
        (tmp_path / "text.png", "no image"),
        (tmp_path / "x", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            transform(sample)
