"""Resumable state and finished models on disk. Loading never runs code from a file."""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from otrw.errors import UserError

COMPLETE = "COMPLETE"


def save_state(folder: Path, name: str, state: dict, keep: int) -> None:
    """Write folder/name/ (in a temporary folder, marked complete, renamed) and drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".partial-{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with (temporary / "state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    (temporary / COMPLETE).touch()
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(folder: Path) -> dict | None:
    """The newest complete state (by name), on the CPU; None where there is none."""
    found = _complete(folder)
    if not found:
        return None
    return torch.load(found[-1] / "state.pt", map_location="cpu", weights_only=True)


def remove_states(folder: Path) -> None:
    """Drop all states of a finished variant."""
    shutil.rmtree(folder, ignore_errors=True)


def save_model(path: Path, model: nn.Module, facts: dict[str, str]) -> None:
    """Write a model's parameters and buffers as safetensors with facts in its header, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, temporary, metadata=facts)
    os.replace(temporary, path)


def load_model(path: Path, model: nn.Module, expected: dict[str, str]) -> dict[str, str]:
    """Load `save_model`'s file into a model and return all its facts.

    Raises UserError where the file, its shapes or its facts do not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"stage1.checkpoint {path} cannot be read ({str(error).splitlines()[0]})") from None
    for key, value in expected.items():
        if facts.get(key, value) != value:
            raise UserError(
                f"stage1.checkpoint {path} must fit this run, but its {key} is {facts[key]!r} and the run's is {value!r}"
            )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"stage1.checkpoint {path} does not fit the model ({line})") from None
    return facts


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{COMPLETE}") if not path.parent.name.startswith("."))
