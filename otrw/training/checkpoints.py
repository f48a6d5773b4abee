"""Resumable state and finished models on disk, with checksums. Loading never runs code from a file."""

import hashlib
import io
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from otrw import atomic
from otrw.errors import UserError

COMPLETE = "COMPLETE"
CHECKSUM = "checksum"  # key of a model file's facts


def save_state(folder: Path, name: str, state: dict, keep: int) -> None:
    """Write folder/name/ in a temporary folder, renamed when complete, with a checksum; keep the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    checksum = hashlib.blake2b(content.getbuffer()).hexdigest()
    final, temporary = folder / name, folder / f"{atomic.PARTIAL}{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        for file, data in ((temporary / "state.pt", content.getbuffer()), (temporary / COMPLETE, checksum.encode())):
            file.write_bytes(data)
            atomic.synchronize(file)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(final)
        raise
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(folder: Path, say: Callable[[str], None] = lambda _: None) -> dict | None:
    """The newest whole state (by name), on the CPU; None where there is none.

    Args:
        folder: holds a folder a state.
        say: told of every damaged state that is passed over for an older one.

    Raises:
        UserError: where there are states, but all are damaged.
    """
    found = _complete(folder)
    for path in reversed(found):
        problem = _damage(path)
        if problem is None:
            try:
                return torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
                problem = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        say(f"{path} is damaged ({problem}) and passed over")
    if found:
        raise UserError(
            f"the checkpoints in {folder} must be whole, got {len(found)} damaged; delete the folder to train from the start"
        )
    return None


def _damage(path: Path) -> str | None:
    """Why a state cannot be what was written; None where nothing speaks against it."""
    try:
        written = (path / COMPLETE).read_text(encoding="ascii").strip()
        # states of version 0.1 have no checksum; their file is a zip whose damage is found in most places as it is read
        if written and written != _file_checksum(path / "state.pt"):
            return "its checksum differs"
    except (OSError, UnicodeDecodeError) as error:
        return type(error).__name__
    return None


def remove_states(folder: Path) -> None:
    """Drop all states of a finished variant."""
    shutil.rmtree(folder, ignore_errors=True)


def save_model(path: Path, model: nn.Module, facts: dict[str, str]) -> None:
    """Write a model's parameters and buffers as safetensors, whole or not at all; equal models give equal bytes.

    Args:
        path: the file.
        model: its parameters and buffers are written.
        facts: what a reader must know of it, kept in the header beside the tensors' checksum.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = _sorted_header(save(tensors, metadata={**facts, CHECKSUM: _tensor_checksum(tensors)}))
    atomic.write_bytes(path, content)


def model_facts(path: Path, name: str = "stage1.checkpoint") -> dict[str, str]:
    """The facts of `save_model`'s file, its parameters unread. Raises UserError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{name} {path} cannot be read ({str(error).splitlines()[0]})") from None


def load_model(path: Path, model: nn.Module, expected: dict[str, str], name: str = "stage1.checkpoint") -> dict[str, str]:
    """Load `save_model`'s file into a model.

    Args:
        path: the file.
        model: takes its parameters and buffers.
        expected: facts that the file must share, where it has them.
        name: what messages call the file.

    Returns:
        All its facts.

    Raises:
        UserError: where the file, its shapes or its facts do not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{name} {path} cannot be read ({str(error).splitlines()[0]})") from None
    if facts.get(CHECKSUM, _tensor_checksum(tensors)) != _tensor_checksum(tensors):
        raise UserError(f"{path} must hold what was written, but its checksum differs; copy or train it again")
    for key, value in expected.items():
        if facts.get(key, value) != value:
            raise UserError(f"{name} {path} must fit this run, but its {key} is {facts[key]!r} and the run's is {value!r}")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{name} {path} does not fit the model ({line})") from None
    return facts


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{COMPLETE}") if not path.parent.name.startswith("."))


def _file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _tensor_checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its header in one order: as the library writes it, the order differs from run to run."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
