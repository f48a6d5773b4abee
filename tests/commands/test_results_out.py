"""What comes out of a run: a net that is loaded in one line, predictions, programs, and the list of suspected labels."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

import otrw
from otrw.commands import audit, predict
from otrw.commands.predict import _files
from otrw.config.command_line import parse_config
from otrw.data.embeddings import KINDS
from otrw.errors import UserError
from otrw.training import checkpoints
from otrw.training.run import run

SETTINGS = [
    "--config=digits_lt",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=6",
    "--stage1.batch_size=64",
    "--stage2.epochs=2",
    "--stage2.rounds=1",
    "--stage2.trainable=classifier",
    "--run.cpu=true",
    "--run.tensorboard=false",
    "--variants=[ot_labels_meta]",
]


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return run(parse_config([*SETTINGS, f"--run.directory={folder}", "--run.name=r"])).folder / "ot_labels_meta"


def digits_to_test(number):
    """(pixels, labels) of the first test images, as the source makes them."""
    bunch = load_digits()
    is_test = np.zeros(len(bunch.target), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(bunch.target == label)[::3]] = True
    return (bunch.images * 15).astype(np.uint8)[is_test][:number], bunch.target[is_test][:number]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(digits_to_test(40)[0]):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def test_a_loaded_net_says_what_the_run_recorded(variant):
    net, transform, class_names = otrw.load(variant)
    recorded = pyarrow.parquet.read_table(variant / "predictions.parquet").to_pydict()
    pixels, labels = digits_to_test(40)
    with torch.inference_mode():
        probabilities = net(torch.stack([transform(image) for image in pixels])).logits.softmax(1)
    assert class_names == tuple("0123456789")
    assert labels.tolist() == recorded["label"][: len(labels)]
    assert probabilities.argmax(1).tolist() == recorded["prediction"][: len(labels)]
    assert probabilities.amax(1).numpy() == pytest.approx(np.array(recorded["confidence"][: len(labels)]), abs=1e-5)


def test_arrays_pillow_images_and_paths_are_prepared_alike(variant, pictures):
    _, transform, _ = otrw.load(variant / "model.safetensors")
    path = pictures / "000.png"
    prepared = [transform(sample) for sample in (path, str(path), Image.open(path), np.asarray(Image.open(path)))]
    assert prepared[0].shape == (1, 8, 8)
    assert all(torch.equal(prepared[0], other) for other in prepared[1:])
    large = transform(Image.open(path).resize((32, 32), Image.Resampling.NEAREST))
    assert (large - prepared[0]).abs().mean() < 0.3  # of standard deviation 1


def test_predictions_are_one_row_a_file_in_either_format(variant, pictures, tmp_path, capsys):
    output = tmp_path / "p.csv"
    predict.main([str(variant), str(pictures), "--output", str(output)])
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    recorded = pyarrow.parquet.read_table(variant / "predictions.parquet").to_pydict()["prediction"]
    assert [row["file"] for row in rows] == [str(path) for path in sorted(pictures.iterdir())]
    assert [row["class"] for row in rows] == [str(label) for label in recorded[: len(rows)]]
    for row in rows:
        assert sum(float(row[f"p_{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-4)
        assert row["probability"] == row[f"p_{row['class']}"]
    predict.main([str(variant), str(pictures), "--output", str(tmp_path / "p.parquet"), "--batch-size", "7"])
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["class"] == [row["class"] for row in rows]
    assert table["p_3"] == pytest.approx([float(row["p_3"]) for row in rows], abs=1e-5)
    assert f"{len(rows)} rows" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_named_and_passed_over(variant, pictures, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    predict.main([str(variant), str(broken), str(pictures / "001.png"), "--output", str(tmp_path / "p.csv")])
    shown = capsys.readouterr()
    assert "broken.png" in shown.err
    assert "1 rows, 1 could not be read" in shown.out
    with pytest.raises(UserError, match="FILES must hold one that can be read, got 1 that cannot"):
        predict.main([str(variant), str(broken), "--output", str(tmp_path / "q.csv")])
    assert not (tmp_path / "q.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"FILES must be there"),
        ([], r"FILES must be given"),
        (["--export", "net.txt"], r"--export must end with .pt2 or .onnx"),
        (["x.png", "--output", "p.xlsx"], r"--output must end with"),
    ],
)
def test_what_cannot_be_done_is_refused(variant, arguments, message):
    with pytest.raises(UserError, match=message):
        predict.main([str(variant), *arguments])


def test_the_folder_of_a_run_names_its_variants(variant):
    with pytest.raises(UserError, match=r"must be that of one variant.*ot_labels_meta.*stage1"):
        otrw.load(variant.parent)


def test_an_exported_program_gives_the_nets_probabilities(variant, tmp_path, capsys):
    path = tmp_path / "net.pt2"
    predict.main([str(variant), "--export", str(path)])
    printed = capsys.readouterr().out
    assert "probabilities within" in printed
    assert "takes float32 (n, 1, 8, 8), pixels from 0 to 255 (grey)" in printed
    extra = {"otrw.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    net, transform, class_names = otrw.load(variant)
    samples = torch.stack([transform(image) for image in digits_to_test(5)[0]])
    pixels = torch.from_numpy(digits_to_test(5)[0]).float()[:, None]  # as they are
    assert program(pixels).detach().numpy() == pytest.approx(net(samples).logits.softmax(1).numpy(), abs=1e-5)
    assert json.loads(extra["otrw.json"])["class_names"] == list(class_names)


def test_an_exported_onnx_file_gives_the_nets_probabilities(variant, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"writing ONNX needs {package}")
    import onnxruntime

    predict.main([str(variant), "--export", str(tmp_path / "net.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    net, transform, _ = otrw.load(variant)
    samples = torch.stack([transform(image) for image in digits_to_test(5)[0]])
    pixels = digits_to_test(5)[0].astype(np.float32)[:, None]
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels})
    assert found == pytest.approx(net(samples).logits.softmax(1).detach().numpy(), abs=1e-5)


def test_a_file_of_an_earlier_version_says_so_in_one_line(variant, tmp_path):
    net, _, _ = otrw.load(variant)
    checkpoints.save_model(tmp_path / "model.safetensors", net, {"source": "digits"})
    with pytest.raises(UserError, match="of an earlier version"):
        otrw.load(tmp_path)


def test_a_damaged_file_is_refused(variant, tmp_path):
    content = bytearray((variant / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="checksum differs"):
        otrw.load(tmp_path)


def test_a_nets_file_names_no_folder_of_the_machine(variant, tmp_path_factory):
    with safe_open(variant / "model.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert "root" not in json.loads(facts["config"])["data"]
    assert str(tmp_path_factory.getbasetemp()) not in json.dumps(facts)


def test_the_audit_of_a_run_finds_the_labels_that_were_spoilt(variant, capsys):
    audit.main([str(variant.parent), "--top", "3"])
    shown = capsys.readouterr().out
    table = pyarrow.parquet.read_table(variant / "audit.parquet").to_pydict()
    weights = pyarrow.parquet.read_table(variant / "weights.parquet").to_pydict()
    assert sorted(table["index"]) == sorted(weights["index"])
    assert "wrong_label_score" not in table.keys() | weights.keys()  # this plan has no probability of it
    assert (np.diff(table["low_weight_score"]) <= 0).all()
    wrong = np.array(table["true_label"]) != np.array(table["given_label"])
    assert wrong[: len(wrong) // 5].mean() > 1.3 * wrong.mean()
    with (variant / "audit.csv").open(encoding="utf-8", newline="") as file:
        assert [row["identity"] for row in csv.DictReader(file)] == table["identity"]
    page = (variant / "audit.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 3 * 10
    assert page.count('src="data:image/png') == 3 * 10
    assert f"{wrong.sum()} of {len(wrong)} wrong: precision" in shown
    assert "weigh less than a quarter of their class's mean" in shown
    assert "probably wrong" not in shown
    figures = json.loads((variant / "audit.json").read_text())["found"]["all classes"]
    assert (figures["num_samples"], figures["num_wrong"]) == (len(wrong), wrong.sum())


def test_a_run_without_weights_cannot_be_audited(variant, tmp_path):
    with pytest.raises(UserError, match="must hold a finished variant with weights"):
        audit.main([str(tmp_path)])
    with pytest.raises(UserError, match="only variants of stage 2 have one"):
        audit.main([str(variant.parent / "stage1")])


def test_a_folder_of_embeddings_gives_its_features_and_not_the_labels_beside_them(tmp_path):
    for name in ("b.npy", "b_labels.npy", "a.npz", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in _files([tmp_path], KINDS)] == ["a.npz", "b.npy"]
