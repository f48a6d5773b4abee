"""Embeddings of the frozen stage-1 net, computed once: every variant and every trial of a search on it needs the same ones.

Kept in memory for the variants of one run and in the cache folder for other runs. The key is made of everything that the
numbers depend on; a cache that cannot be read or written is passed over, since only time is lost.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from otrw import atomic, distributed
from otrw.data.cache import SUFFIX, read_arrays, write_arrays
from otrw.data.files import ImageFiles
from otrw.data.loader import SampleSet

MOST_FILES = 64  # the oldest beyond these are dropped; one of 50,000 samples takes 13 MB


def backbone_key(backbone: nn.Module) -> str:
    """16 hex digits of a backbone's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class EmbeddingCache:
    """Tables (N, D) of one backbone by set of samples. Every process calls it with the same sets in the same order."""

    def __init__(self, folder: str, backbone: str, facts: str) -> None:
        """folder: "" keeps nothing on disk. backbone: its `backbone_key`. facts: whatever else the numbers depend on."""
        self.folder = Path(folder).expanduser() / "embeddings" if folder else None
        self.backbone = backbone
        self.facts = facts
        self._tables: dict[str, Tensor] = {}

    def table(self, samples: SampleSet, compute: Callable[[], Tensor]) -> Tensor:
        """The embeddings (N, D) of all samples, replicated, by sample index."""
        key = self._key(samples)
        if key not in self._tables:
            found = self._read(key)
            found = None if found is None or len(found) != len(samples) else found
            found_by = distributed.all_reduce_sum(torch.tensor(float(found is not None), device=samples.labels.device))
            if found is None or int(found_by) < distributed.world_size():
                found = compute()
                if distributed.is_main():
                    self._write(key, found)
            self._tables[key] = found.to(samples.labels.device)
        return self._tables[key]

    def _key(self, samples: SampleSet) -> str:
        inputs = samples.inputs
        digest = hashlib.sha256(f"{self.backbone}|{self.facts}|".encode())
        if isinstance(inputs, ImageFiles):
            digest.update(inputs.key().encode())
            return digest.hexdigest()[:32]
        digest.update(f"{tuple(inputs.shape)}".encode())
        digest.update(samples.source_index.cpu().numpy().tobytes())
        # train and test share variant numbers: the pixels tell them apart
        digest.update(str(inputs.sum(dtype=torch.float64 if inputs.is_floating_point() else torch.int64).item()).encode())
        return digest.hexdigest()[:32]

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        found = (read_arrays(self.folder / f"{key}{SUFFIX}") or {}).get("embeddings")
        return None if found is None else torch.from_numpy(found)

    def _write(self, key: str, table: Tensor) -> None:
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.remove_partial(self.folder)
            write_arrays(self.folder / f"{key}{SUFFIX}", {"embeddings": table.cpu().numpy()})
            files = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
            for old in files[:-MOST_FILES]:
                old.unlink(missing_ok=True)
