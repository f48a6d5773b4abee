"""Parameters from a file: safetensors, or what torch.save wrote. Loading never runs code from it."""

import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from otrw.errors import UserError, first_line

WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
SECTIONS = ("model_ema", "state_dict_ema", "state_dict", "model")
"""Where training scripts of torchvision and timm keep the parameters in their checkpoints; averaged ones first."""
MOST_NAMED = 3


class Weights(NamedTuple):
    """Tensors of a file by name, split where it is a whole net of this package."""

    backbone: dict[str, Tensor]
    """By the names that the library, or the net's backbone, gives them; a library's own classifier is among them."""
    head: dict[str, Tensor]
    """Of this package's classifier; empty in a file of another origin."""


def read_weights(path: str | Path, *, of_library: bool) -> Weights:
    """The tensors of a weights file.

    Args:
        path: `*.safetensors`, or anything that torch.save wrote: a state_dict, or a checkpoint that holds one.
        of_library: whether the net comes from torchvision or timm.

    Raises:
        UserError: where the file is missing, damaged, holds other things than tensors, or numbers that are not finite.
    """
    path = Path(path).expanduser()
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        raise UserError(f"model.weights must be a file of tensors, got {str(path)!r} ({what}); see --help model") from None
    for section in SECTIONS:
        if isinstance(content, dict) and isinstance(content.get(section), dict):
            content = content[section]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"model.weights must hold a state_dict, tensors by name, got something else in {str(path)!r}")
    state = {str(name): value for name, value in content.items()}
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    bad = next((name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()), None)
    if bad is not None:
        raise UserError(f"model.weights must hold finite numbers, got others in {bad} of {str(path)!r}; take another file")
    if not any(name.startswith("backbone.") for name in state):
        return Weights(state, {})
    prefix = "backbone.net." if of_library else "backbone."
    return Weights(_below(state, prefix), _below(state, "head."))


def load_strictly(module: nn.Module, state: dict[str, Tensor], name: str, source: str) -> None:
    """Load a state_dict into a module of which it must name every tensor, and no other.

    Args:
        module: changed in place.
        state: tensors by name.
        name: of the net, for the message.
        source: where the tensors come from, for the message.

    Raises:
        UserError: naming what is missing, not known, or of another shape.
    """
    expected = module.state_dict()
    # files of old versions of torch lack this count, which only a BatchNorm without momentum uses
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    problems = []
    if missing:
        problems.append(f"lacks {_named(missing)}")
    if unknown:
        problems.append(f"has {_named(unknown)}, unknown there")
    if reshaped:
        shapes = [f"{key} of {tuple(state[key].shape)} for {tuple(expected[key].shape)}" for key in reshaped]
        problems.append(f"has {_named(shapes)}")
    if problems:
        raise does_not_fit(source, name, " and ".join(problems))
    module.load_state_dict(state, strict=False)


def does_not_fit(source: str, name: str, problem: str) -> UserError:
    """The error for weights of another net."""
    return UserError(f"model.weights must fit {name}, but {source} {problem}; is it of another net?")


def take_head(head: nn.Module, found: dict[str, Tensor]) -> str:
    """Load a classifier's tensors where they fit exactly, and say what became of them.

    Args:
        head: of the new net; changed in place where the tensors fit.
        found: tensors by name; empty where the file has no classifier.

    Returns:
        A clause for the line on where a net's parameters come from.
    """
    expected = head.state_dict()
    if not found:
        return "without a head"
    if found.keys() == expected.keys() and all(found[key].shape == expected[key].shape for key in expected):
        head.load_state_dict(found)
        return f"with its head of {len(expected['weight'])} classes"
    rows = len(found["weight"]) if "weight" in found and found["weight"].dim() else "other"
    return f"its head of {rows} classes left out, a new one has {len(expected['weight'])}"


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
