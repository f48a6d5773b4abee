"""A finished variant in words, as Markdown."""

from pathlib import Path

from otrw.config import Config
from otrw.config.variants import TITLES

FIGURES = {
    "error": "error",
    "balanced_error": "balanced error",
    "many_error": "error, many-shot classes",
    "medium_error": "error, medium-shot classes",
    "few_error": "error, few-shot classes",
}


def run_text(config: Config, result: dict, folder: Path) -> str:
    """What was trained on what, and how it ended.

    Args:
        config: of the variant.
        result: as in result.json.
        folder: of the variant.

    Returns:
        Markdown: a heading, facts of the data, settings in short, and a table of the test set's figures.
    """
    data, model, stage2 = config.data, result["model"], config.stage2
    sizes, given = result["true_sizes"], result["given_sizes"]
    num_test = sum(map(sum, result["confusion"]))
    noise = f", {data.label_noise} label noise {100 * data.label_noise_rate:g} %" if data.label_noise_rate else ""
    facts = result.get("data")
    meta = f"{data.num_meta_per_class} meta images a class"
    if facts is not None:
        meta = f"{facts['num_samples']['meta']} meta samples, {'checked' if facts['meta_is_checked'] else 'taken on trust'}"
    lines = [
        f"## {TITLES[config.variants[0]]}, seed {config.run.seed}",
        "",
        f"Run `{folder.parent.name}`, variant `{folder.name}`, preset `{config.run.preset or 'none'}`, "
        f"{result['seconds']:.0f} s.",
        "",
        f"- data: {result['dataset']}, {sum(given)} training samples in {len(sizes)} classes of {max(sizes)} down to "
        f"{min(sizes)} (imbalance {result['imbalance_factor']:g}){noise}; {meta}; "
        f"{num_test} test samples; split `{result['split_hash']}`",
        f"- net: {model['name']}, width {model['width_multiplier']:g}, {model['num_parameters']:,} parameters",
        f"- stage 1: {config.stage1.epochs} epochs, {config.stage1.loss.name}",
    ]
    if stage2.trainable != "none":
        lines += [
            f"- stage 2: {stage2.trainable}, {stage2.rounds} x {stage2.epochs} epochs, learning rate "
            f"{stage2.optimizer.learning_rate:g}, meta loss x {stage2.meta_loss_factor:g}",
            f"- weights: {config.ot.weights}{_transport(config)}",
        ]
    weights = result.get("weights", {})
    if weights.get("wrong_label_mass") is not None:
        lines.append(f"- wrong labels hold {100 * weights['wrong_label_mass']:.1f} % of the weight")
    lines += ["", f"| test set, last epoch | % of {num_test} samples |", "| --- | ---: |"]
    figures = result["test"]
    lines += [f"| {title} | {figures[key]:.1f} |" for key, title in FIGURES.items() if figures.get(key) is not None]
    return "\n".join(lines)


def _transport(config: Config) -> str:
    """Settings of the transport, where there is one."""
    ot = config.ot
    if not config.variants[0].startswith("ot"):
        return ""
    return f", epsilon {ot.epsilon:g}, mixing {ot.mixing:g}, label transport {ot.label_transport:g}"
