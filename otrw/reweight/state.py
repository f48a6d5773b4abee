"""What later calls of `OTReweighter` depend on, as one flat dict of tensors for a checkpoint, and back."""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw.errors import check
from otrw.reweight.diagnostics import Diagnostics
from otrw.reweight.problem import Reference


class State(NamedTuple):
    """Everything that later calls depend on; replicated."""

    weights: Tensor
    """(N,)"""
    theta: Tensor
    """(N,)"""
    num_unconverged: int
    """Of all calls so far."""
    reference: Reference | None
    diagnostics: Diagnostics | None
    tables: dict[str, Tensor]
    """By name, what only some kinds of weights have."""
    net: dict[str, Tensor]
    """Parameters of the weight net; empty without one."""


def to_tensors(state: State) -> dict[str, Tensor]:
    """One level of names, as `from_tensors` reads them."""
    tensors = {"weights": state.weights, "theta": state.theta, "unconverged": torch.tensor(state.num_unconverged)}
    if state.reference is not None:
        tensors |= {"reference.embeddings": state.reference.embeddings, "reference.labels": state.reference.labels}
    if state.diagnostics is not None:
        tensors["diagnostics"] = state.diagnostics.to_tensor()
    return tensors | state.tables | {f"net.{name}": value for name, value in state.net.items()}


def from_tensors(tensors: dict[str, Tensor], num_samples: int, num_classes: int, device: torch.device) -> State:
    """What `to_tensors` gave, copied to the device; earlier versions had no reference, count or diagnostics.

    Raises:
        UserError: where it is of another number of samples.
    """
    check(len(tensors["weights"]) == num_samples, "number of weights", len(tensors["weights"]), f"be {num_samples}")
    here = {name: value.to(device, copy=True) for name, value in tensors.items() if name not in ("diagnostics", "unconverged")}
    weights, theta = here.pop("weights"), here.pop("theta")
    atoms, classes = here.pop("reference.embeddings", None), here.pop("reference.labels", None)
    net = {name.removeprefix("net."): here.pop(name) for name in list(here) if name.startswith("net.")}
    return State(
        weights,
        theta,
        int(tensors.get("unconverged", 0)),
        None if atoms is None or classes is None else Reference(atoms, classes, num_classes),
        Diagnostics.from_tensor(tensors["diagnostics"]) if "diagnostics" in tensors else None,
        here,
        net,
    )
