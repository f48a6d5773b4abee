"""Images in files: decoded and cropped by workers as their draws say, in the batches that any number of processes share."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from otrw.data.augment import Augmentation
from otrw.data.decoding import (
    NUM_DRAWS,
    Cropping,
    Failure,
    Request,
    all_decoded,
    decoded,
    decoded_batches,
    pictures,
    random_box,
)
from otrw.data.files import ImageFiles
from otrw.data.loader import Loader, SampleSet
from otrw.data.view import ImageTransform
from otrw.errors import UserError
from otrw.models.library_nets import NetInput
from otrw.seeds import seed_for

SIDE = 16
CENTRE = Cropping(SIDE, 18, "bilinear")


def photo(width, height, seed=0):
    """An image as smooth as a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 JPEGs of sizes of their own."""
    path = tmp_path_factory.mktemp("images")
    for number in range(23):
        photo(60 + 7 * number, 90 - 2 * number, number).save(path / f"{number:02d}.jpg", quality=92)
    return path


def files_of(folder):
    paths = sorted(folder.glob("*.jpg"))
    return ImageFiles(np.array([str(path) for path in paths], dtype=object), np.array([p.name for p in paths], dtype=object))


def sample_set(folder):
    files = files_of(folder)
    labels = torch.arange(len(files)) % 3
    return SampleSet(files, labels, labels, labels, torch.arange(len(files)))


def transform(train=True, workers=0):
    mean = std = torch.full((3,), 100.0)
    augmentation = Augmentation(4, "reflect", True, 3) if train else None
    return ImageTransform(mean, std, augmentation, NetInput(SIDE, 18, (), (), "bilinear"), 0.2, workers)


def global_batches(samples, batch_size, world_size, workers=0, epoch=1, first_step=0, **options):
    ranks = [
        list(
            Loader(
                samples,
                batch_size,
                seed=3,
                rank=rank,
                world_size=world_size,
                transform=transform(workers=workers),
                **options,
            ).epoch(epoch, first_step)
        )
        for rank in range(world_size)
    ]
    fields = ("index", "inputs", "labels", "partner")
    return [
        {field: torch.cat([getattr(batch, field)[batch.mask] for batch in batches]) for field in fields}
        for batches in zip(*ranks, strict=True)
    ]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for ours, theirs in zip(left, right, strict=True):
        for field, value in ours.items():
            assert torch.equal(value, theirs[field]), field


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.4])
def test_processes_together_see_the_batches_of_one_process(folder, mixup_alpha):
    samples = sample_set(folder)
    whole = global_batches(samples, 10, 1, mixup_alpha=mixup_alpha)
    for world_size in (2, 3):
        assert_same(global_batches(samples, 10, world_size, mixup_alpha=mixup_alpha), whole)


def test_batches_are_the_same_for_any_number_of_workers(folder):
    samples = sample_set(folder)
    whole = global_batches(samples, 6, 1)
    for workers in (1, 2):
        assert_same(global_batches(samples, 6, 1, workers=workers), whole)


def test_an_epoch_that_goes_on_in_the_middle_is_its_second_half(folder):
    samples = sample_set(folder)
    assert_same(
        global_batches(samples, 6, 1, first_step=2, mixup_alpha=0.3), global_batches(samples, 6, 1, mixup_alpha=0.3)[2:]
    )
    loader = Loader(samples, 5, seed=1, transform=transform())
    whole, rest = list(loader.cycle(2, 7)), list(loader.cycle(2, 7, 4))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(whole[4:], rest, strict=True))


def test_training_images_change_every_epoch_and_those_of_evaluation_never(folder):
    samples = sample_set(folder)

    def images(train, epoch):
        loader = Loader(samples, 23, seed=1, transform=transform(train), shuffle=False)
        return next(loader.epoch(epoch)).inputs

    assert not torch.equal(images(True, 0), images(True, 1))
    assert torch.equal(images(False, 0), images(False, 1))


def test_a_pass_takes_no_draw_of_torch(folder):
    state = torch.get_rng_state()
    list(Loader(sample_set(folder), 8, seed=1, transform=transform()).epoch())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_image_is_its_crop_flipped_and_normalised(folder):
    samples = sample_set(folder)
    loader = Loader(samples, 4, seed=1, transform=transform(), shuffle=False)
    batch = next(loader.epoch(5))
    cropping = transform().cropping
    (pixels,) = decoded_batches(samples.inputs, cropping, [Request([0, 1, 2, 3], seed_for(1, "crop", 5, 0))], workers=0)
    plain = ((pixels.float() - 100) / 100).permute(0, 3, 1, 2)
    flipped = 0
    for seen, image in zip(batch.inputs, plain, strict=True):
        is_kept = seen != 0  # a cutout square has the mean colour
        choices = [torch.equal(seen[is_kept], choice[is_kept]) for choice in (image, image.flip(2))]
        assert any(choices)
        flipped += choices[1]
    assert batch.inputs.shape == (4, 3, SIDE, SIDE)


def test_random_boxes_are_drawn_as_torchvision_draws_them():
    draws = torch.rand(4000, NUM_DRAWS, generator=torch.Generator().manual_seed(0)).tolist()
    ours = torch.tensor([random_box(300, 200, 0.08, numbers) for numbers in draws]).float()
    image = torch.zeros(1, 200, 300)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        boxes = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = torch.tensor([(left, top, width, height) for top, left, height, width in boxes]).float()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= 300).all()
    assert (ours[:, 1] + ours[:, 3] <= 200).all()
    for statistic in (lambda x: x.mean(0), lambda x: x.std(0), lambda x: x.quantile(0.9, dim=0)):
        torch.testing.assert_close(statistic(ours), statistic(theirs), rtol=0.06, atol=2)


def test_a_box_that_fits_no_try_is_the_centre_of_a_bearable_shape():
    assert random_box(1000, 10, 0.9, [0.5] * NUM_DRAWS) == (493, 0, 13, 10)
    assert random_box(10, 1000, 0.9, [0.5] * NUM_DRAWS) == (0, 493, 10, 13)


@pytest.mark.parametrize("size", [(640, 480), (300, 411)])
def test_evaluation_cuts_out_the_centre_as_torchvision_does(tmp_path, size):
    from torchvision.transforms import CenterCrop, Resize

    photo(*size).save(tmp_path / "0.jpg", quality=95)
    expected = np.asarray(CenterCrop(64)(Resize(72)(Image.open(tmp_path / "0.jpg")))).astype(int)
    found = decoded(files_of(tmp_path), 0, Cropping(64, 72, "bilinear"), None).astype(int)
    assert found.shape == (64, 64, 3)
    assert np.abs(found - expected).mean() < 4  # they round places to whole pixels
    assert np.abs(found - np.roll(expected, 4, axis=1)).mean() > 20


@pytest.mark.parametrize("size", [(1600, 1200), (900, 1300)])
def test_decoding_a_jpeg_at_a_part_of_its_size_leaves_the_picture(tmp_path, size, monkeypatch):
    photo(*size).save(tmp_path / "0.jpg", quality=95)
    files = files_of(tmp_path)
    cropping = Cropping(96, 96, "bilinear", 0.5)
    draws = [0.3] * NUM_DRAWS
    shapes = []
    read = ImageFiles.read

    def recorded(self, row, enough=None):
        image = read(self, row, enough)
        shapes.append(image.size)
        return image

    monkeypatch.setattr(ImageFiles, "read", recorded)
    for numbers in (None, draws):
        found = decoded(files, 0, cropping, numbers).astype(int)
        box = cropping.box(*size, numbers)
        whole = Image.open(tmp_path / "0.jpg").resize(
            (96, 96), Image.Resampling.BILINEAR, box=(box.left, box.top, box.left + box.width, box.top + box.height)
        )
        assert np.abs(found - np.asarray(whole).astype(int)).mean() < 2
    assert all(width < size[0] for width, _ in shapes)  # and it was decoded at a part of its size
    assert all(width * box.width / size[0] >= 96 for width, _ in shapes)


def test_a_turned_jpeg_is_cropped_as_it_is_seen(tmp_path):
    upright = photo(1200, 640)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "0.jpg", exif=exif, quality=95)
    upright.save(tmp_path / "1.jpg", quality=95)
    files = files_of(tmp_path)
    for numbers in (None, [0.2] * NUM_DRAWS):
        turned, plain = (decoded(files, row, Cropping(32, 36, "bilinear", 0.3), numbers).astype(int) for row in (0, 1))
        assert np.abs(turned - plain).mean() < 2


def test_small_and_grey_images_are_made_larger(tmp_path):
    Image.new("L", (5, 9), 77).save(tmp_path / "0.jpg")
    assert (np.abs(decoded(files_of(tmp_path), 0, CENTRE, None).astype(int) - 77) <= 1).all()


def damaged(folder, tmp_path, number=5):
    for path in folder.glob("*.jpg"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / f"{number:02d}.jpg"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    return sample_set(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_damaged_late_is_named_in_one_line(folder, tmp_path, workers):
    samples = damaged(folder, tmp_path)
    with pytest.raises(UserError, match=r"05\.jpg") as caught:
        list(Loader(samples, 4, seed=1, transform=transform(workers=workers)).epoch())
    assert "\n" not in str(caught.value)


def test_of_several_processes_the_one_that_meets_it_waits_for_the_others(folder, tmp_path):
    samples = damaged(folder, tmp_path)
    met = 0
    for rank in range(2):
        seen = 0
        try:
            for _ in Loader(samples, 4, seed=1, rank=rank, world_size=2, transform=transform()).epoch():
                seen += 1
        except UserError:
            met += 1
            assert seen == 5  # of 6 steps: before the last one all are asked
    assert met == 1


def test_a_file_that_goes_away_is_named(folder, tmp_path):
    samples = damaged(folder, tmp_path)
    (tmp_path / "03.jpg").unlink()
    (found,) = decoded_batches(samples.inputs, CENTRE, [Request([3], None)], workers=0)
    assert isinstance(found, Failure)
    assert "03.jpg" in found.message


def test_all_images_at_once_and_small_pictures(folder):
    files = files_of(folder)
    assert all_decoded(files, CENTRE, workers=0).shape == (23, SIDE, SIDE, 3)
    shown = pictures(files, torch.tensor([4, 1]), side=20)
    assert shown.shape == (2, 20, 20, 3)
    assert np.array_equal(shown[1].numpy(), decoded(files, 1, Cropping(20, 20, "bilinear"), None))
    assert pictures(files, torch.zeros(0, dtype=torch.long)).shape == (0, 96, 96, 3)
    assert torch.equal(pictures(torch.arange(24).view(2, 2, 2, 3), torch.tensor([1])), torch.arange(12, 24).view(1, 2, 2, 3))
