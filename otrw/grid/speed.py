"""How fast this machine trains a net: for estimates before a long job."""

import time

import torch
from torch.nn.functional import cross_entropy

from otrw.config import Config
from otrw.config.known_data import KNOWN_DATA
from otrw.models.build import build_model
from otrw.models.library_nets import net_input
from otrw.models.names import library_of

NUM_WARMUP_STEPS = 3


def images_per_second(config: Config, device: torch.device, *, precision: str, seconds: float = 3.0) -> float:
    """Training images a second of the config's net and stage-1 batch, one process, without loading data."""
    known, model = KNOWN_DATA[config.data.source], config.model
    num_classes, in_channels, side = known.num_classes, known.in_channels, config.data.image_size or known.image_side
    if library_of(model.name) and config.data.image_size is None:
        side = net_input(model.name).image_size
    net = build_model(
        model.name,
        num_classes,
        in_channels=in_channels,
        width_multiplier=model.width_multiplier,
        head=model.head,
        image_size=side,
    ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    batch_size = config.stage1.batch_size
    images = torch.randn(batch_size, in_channels, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % num_classes
    num_steps, started = -NUM_WARMUP_STEPS, time.monotonic()
    while num_steps < 1 or time.monotonic() - started < seconds:
        if num_steps == 0:
            started = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = net(images).logits
        cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        num_steps += 1
    return num_steps * batch_size / (time.monotonic() - started)
