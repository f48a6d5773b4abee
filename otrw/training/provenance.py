"""What a net was trained on and how: written into its file, compared before another run starts from it."""

import hashlib
import json
from dataclasses import asdict, replace

from otrw.config import Config, LossConfig, OptimizerConfig, Stage1Config
from otrw.data.datasets import Datasets
from otrw.errors import UserError


def identity(config: Config, data: Datasets) -> dict[str, str]:
    """What a net's file must share with a run that starts from it: source, split, given labels (wrong ones too) and net."""
    labels = data.train.labels.cpu().numpy().astype("int64")
    return {
        "source": config.data.source,
        "split": data.split_hash,
        "given_labels": hashlib.sha256(labels.tobytes()).hexdigest()[:16],
        "model": f"{config.model.name} x{config.model.width_multiplier:g} {config.model.head}",
    }


def net_facts(config: Config, data: Datasets, precision: str) -> dict[str, str]:
    """The header of a net's file: its identity, and the settings of the stage 1 that it had.

    Args:
        config: of the variant, with the stage 1 that its net really had.
        data: what it was trained on.
        precision: of training, as accelerate names it.
    """
    return identity(config, data) | {
        "stage1_epochs": str(config.stage1.epochs),
        "stage1": json.dumps(asdict(replace(config.stage1, checkpoint=None)), sort_keys=True),
        "label_noise": f"{config.data.label_noise} {config.data.label_noise_rate:g}",
        "seed": str(config.run.seed),
        "precision": precision,
    }


def stage1_as_trained(config: Config, facts: dict[str, str]) -> tuple[Stage1Config, str]:
    """The stage 1 that a given net had, for the record, and a line that says so.

    Args:
        config: of the run; its own stage-1 settings do not apply to a net that comes from a file.
        facts: the header of the file.

    Raises:
        UserError: where the header cannot be read.
    """
    path = config.stage1.checkpoint
    if "stage1" not in facts:
        epochs = int(facts.get("stage1_epochs", config.stage1.epochs))
        line = f"stage 1 from {path}, {epochs} epochs; an older file, which does not say its label noise or other settings"
        return replace(config.stage1, epochs=epochs), line
    try:
        settings = json.loads(facts["stage1"])
        optimizer = OptimizerConfig(**settings["optimizer"] | {"milestones": tuple(settings["optimizer"]["milestones"])})
        loss = LossConfig(**settings["loss"])
        stage1 = Stage1Config(**settings | {"optimizer": optimizer, "loss": loss, "checkpoint": path})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"stage1.checkpoint {path} must say its settings, got {type(error).__name__} in its header") from None
    noise, seed = facts.get("label_noise", "?"), facts.get("seed", "?")
    line = (
        f"stage 1 from {path}: {stage1.epochs} epochs, {stage1.loss.name}, label noise {noise}, seed {seed}, "
        f"precision {facts.get('precision', '?')}; recorded with these settings"
    )
    return stage1, line
