"""A net as a program that runs without this package: pixels or embeddings in, class probabilities out."""

import importlib.util
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from otrw.errors import UserError, first_line
from otrw.training.model_file import TrainedNet

TOLERANCE = 1e-4
"""Most that a probability may differ from the net's own: float32 sums in another order stay far below."""
FACTS = "otrw.json"
"""Extra file inside a torch.export archive."""
SUFFIXES = (".pt2", ".onnx")


class _Probabilities(nn.Module):
    """Samples as they are -> probabilities (n, C): mean and standard deviation are part of the program."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedNet) -> None:
        super().__init__()
        self.net = trained.net
        shape = (-1, 1, 1) if trained.transform.is_of_images else (-1,)
        self.register_buffer("mean", trained.transform.mean.view(shape))
        self.register_buffer("std", trained.transform.std.view(shape))

    def forward(self, samples: Tensor) -> Tensor:
        return self.net((samples - self.mean) / self.std).logits.softmax(1)


def describe_input(trained: TrainedNet) -> str:
    """What the program takes, in words."""
    shape = trained.transform.prepared_shape
    if not trained.transform.is_of_images:
        return f"float32 (n, {shape[0]}), embeddings as they are"
    color = "RGB, or grey three times" if shape[0] == 3 else "grey"
    return f"float32 (n, {', '.join(map(str, shape))}), pixels from 0 to 255 ({color}), resized as in training"


def export(trained: TrainedNet, path: Path) -> float:
    """Write the net as a program and hold what it gives against the net's own, for several batch sizes.

    Args:
        trained: from `load`.
        path: ends with .pt2 (torch.export; class names and what it takes lie in its extra file otrw.json) or .onnx.

    Returns:
        The largest difference of a probability.

    Raises:
        UserError: where a package is missing, the net cannot be exported, or the program gives something else.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--export must end with {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if path.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"{package} must be installed to write ONNX, got none; pip install onnx onnxscript onnxruntime")
    module = _Probabilities(trained).eval()
    example, _ = _samples(module, trained, 2)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        write = _write_onnx if path.suffix == ".onnx" else _write_program
        write(module, example, trained, temporary)
        difference = _difference(module, trained, temporary, is_onnx=path.suffix == ".onnx")
        if difference > TOLERANCE:
            raise UserError(
                f"the program must give the net's probabilities within {TOLERANCE:g}, but differs by {difference:.2g}"
            )
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"--export must be writable, got {str(path)!r} ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _samples(module: _Probabilities, trained: TrainedNet, number: int) -> tuple[Tensor, Tensor]:
    """Made-up samples as they are, and prepared for the net."""
    shape = trained.transform.prepared_shape
    prepared = torch.randn(number, *shape, generator=torch.Generator().manual_seed(number))
    return prepared * module.std + module.mean, prepared


def _write_program(module: nn.Module, example: Tensor, trained: TrainedNet, path: Path) -> None:
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # whatever a net does that cannot be traced
        raise UserError(f"the net must be one that torch.export can trace, but is not ({first_line(error)})") from None
    facts = {"class_names": trained.class_names, "input": describe_input(trained), "shape": trained.transform.prepared_shape}
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})


def _write_onnx(module: nn.Module, example: Tensor, trained: TrainedNet, path: Path) -> None:
    try:
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=True,
            external_data=False,
            input_names=["samples"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"the net must be one that torch.onnx can write, but is not ({first_line(error)})") from None


def _difference(module: _Probabilities, trained: TrainedNet, path: Path, *, is_onnx: bool) -> float:
    differences = []
    if is_onnx:
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    else:
        with path.open("rb") as file:
            program = torch.export.load(file).module()
    with torch.inference_mode():
        for number in (1, 2, 7):
            samples, prepared = _samples(module, trained, number)
            if is_onnx:
                found = torch.from_numpy(session.run(None, {"samples": samples.numpy()})[0])
            else:
                found = program(samples)
            differences.append(float((found - trained.net(prepared).logits.softmax(1)).abs().max()))
    return max(differences)
