"""Hand-made run records for tests of what reads them."""

import json

import yaml

from otrw.config import to_dict
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config

NAMES = ("cat", "dog")


def write_record(folder, *arguments, variant="ot_meta", error=10.0, seed=0, **result):
    """A record of the given command line, with the given test error; returns its folder."""
    config = parse_config([*arguments, "--run.seed", str(seed)])
    settings = json.loads(json.dumps(to_dict(variant_config(config, variant))))
    dataset = config.data.source + ("_coarse" if config.data.labels == "coarse" else "")
    test = {"error": error, "balanced_error": error + 1, "ece": 2.5, "many_error": error - 1, "medium_error": None}
    content = {
        "row": variant,
        "dataset": dataset,
        "imbalance_factor": config.data.imbalance_factor,
        "seed": seed,
        "test": test | {"few_error": error + 2, "class_error": [error, error + 2], "loss": 1.0},
        "best_epoch_test_error": error - 0.5,
        "confusion": [[9, 1], [2, 8]],
        "model": {"name": config.model.name, "width_multiplier": 1.0, "num_parameters": 464154},
        "class_names": list(NAMES),
        "given_sizes": [80, 20],
        "true_sizes": [90, 10],
    }
    folder = folder / variant
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "environment.json").write_text(json.dumps({"commit": "0" * 40, "world_size": 1}))
    (folder / "result.json").write_text(json.dumps(content | result))
    return folder
