"""The end of a variant: evaluated for the record, and the record written."""

from pathlib import Path

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import Config
from otrw.config.known_data import data_set_name
from otrw.data.datasets import Datasets
from otrw.models.build import num_parameters
from otrw.models.heads import HeadOnly, Net
from otrw.records import ledger
from otrw.training import checkpoints
from otrw.training.evaluation import embed, evaluate, summary
from otrw.training.metrics import group_error
from otrw.training.model_file import use_facts
from otrw.training.provenance import net_facts
from otrw.training.session import Session
from otrw.training.stages import image_views
from otrw.training.weighting import Weighting


def make_result(session: Session, net: Net, weighting: Weighting | None) -> dict:
    """Evaluate for the record, and on the main process write it; result.json comes last, it means "done"."""
    config, data, folder = session.config, session.data, session.journal.folder
    views = image_views(session)
    local, embeddings = embed(session, net, data.test, views.transform)
    counts = evaluate(session, HeadOnly(net.head), data.test.with_inputs(embeddings), None)
    probabilities = distributed.gather_by_index(local.index, local.probabilities, len(data.test))
    correct = probabilities.argmax(1) == data.test.labels
    lines = ledger.read_lines(folder / "metrics.jsonl")
    test_errors = [line["test"]["error"] for line in lines if "test" in line]
    result = {
        "row": config.variants[0],
        "dataset": data_name(config, data),
        "imbalance_factor": imbalance_factor(config, data),
        "seed": config.run.seed,
        "test": summary(session, counts),
        "best_epoch_test_error": min(test_errors, default=None),
        "confusion": counts.confusion.long().tolist(),
        "model": {
            "name": config.model.name,
            "width_multiplier": config.model.width_multiplier,
            "num_parameters": num_parameters(net),
        },
        "class_names": list(data.class_names),
        "given_sizes": data.given_sizes.tolist(),
        "true_sizes": data.true_sizes.tolist(),
        "split_hash": data.split_hash,
        **({} if data.facts is None else {"data": _facts(data)}),
        "copies": str(data.copies),
        "seconds": round(session.journal.seconds(), 1),
    }
    if not torch.equal(data.test.subclasses, data.test.labels):
        result["subclass_error"] = group_error(correct, data.test.subclasses)
    if data.validation is not None:
        _, embeddings_validation = embed(session, net, data.validation, views.transform)
        validation = data.validation.with_inputs(embeddings_validation)
        result["validation"] = summary(session, evaluate(session, HeadOnly(net.head), validation, None))
    if weighting is not None:
        class_mass = {} if weighting.is_empty else {"class_mass": _class_mass(weighting.weights, data)}
        result["weights"] = weighting.describe() | weighting.movement() | weighting.estimates() | class_mass
    of_training = None if weighting is None else _training_predictions(session, net, weighting)
    distributed.on_main(
        lambda: _write_record(session, net, weighting, result, probabilities.cpu(), embeddings.cpu(), of_training)
    )
    return result


def data_name(config: Config, data: Datasets) -> str:
    """What the data are called in tables: digits, cifar100_coarse; of one's own the folder, and a hash of what is in it."""
    if data.facts is None:
        is_coarse = config.data.labels == "coarse"
        return data_set_name(config.data.source, is_coarse=is_coarse, num_classes=data.num_classes, num_test=len(data.test))
    return f"{Path(config.data.root).expanduser().resolve().name} {str(data.facts['files_hash'])[:6]}"


def imbalance_factor(config: Config, data: Datasets) -> float:
    """Size of the largest class over the size of the smallest: as it was asked for, or as one's own data are."""
    if config.data.imbalance_factor is not None:
        return config.data.imbalance_factor
    return round(float(data.true_sizes.max() / data.true_sizes.min().clamp_min(1)), 2)


def _facts(data: Datasets) -> dict:
    sizes = {"train": len(data.train), "meta": len(data.meta), "test": len(data.test)}
    sizes["validation"] = 0 if data.validation is None else len(data.validation)
    trust = {"meta_is_checked": data.meta_is_checked, "knows_truth": data.knows_truth}
    return {**(data.facts or {}), "num_samples": sizes, **trust, "notes": list(data.notes)}


def _write_record(
    session: Session,
    net: Net,
    weighting: Weighting | None,
    result: dict,
    probabilities: Tensor,
    embeddings: Tensor,
    of_training: Tensor | None,
) -> None:
    config, data, folder = session.config, session.data, session.journal.folder
    test, train = data.test, data.train
    confidence, predicted = probabilities.max(1)
    ledger.write_columns(
        folder / "predictions.parquet",
        {
            "index": test.source_index.cpu().numpy(),
            "label": test.labels.cpu().numpy(),
            "prediction": predicted.numpy(),
            "confidence": confidence.numpy(),
        },
    )
    if weighting is not None:
        columns = {
            "index": train.source_index,
            "given_label": train.labels,
            "weight": weighting.weights.float(),
        }
        if data.knows_truth:
            columns["true_label"] = train.true_labels
        suggested = weighting.suggested_labels()
        if suggested is not None:  # the plan's own: in the blended target the given label nearly always leads
            columns["target_label"] = suggested
        scores = weighting.wrong_label_scores()
        if scores is not None:
            columns["wrong_label_score"] = scores.float()
        if of_training is not None:
            columns["prediction"] = of_training
        arrays: dict[str, object] = {key: value.cpu().numpy() for key, value in columns.items()}
        if data.is_settled is not None:
            arrays["is_settled"] = data.is_settled[train.source_index.cpu().numpy()]
        if data.identities is not None:
            names = [data.identities[row] for row in train.source_index.tolist()]
            arrays["identity"] = [name.encode("utf-8", "backslashreplace").decode() for name in names]  # any bytes name a file
        ledger.write_columns(folder / "weights.parquet", arrays)
    facts = net_facts(config, data, session.accelerator.mixed_precision) | use_facts(config, data)
    checkpoints.save_model(folder / "model.safetensors", net, facts)
    session.journal.describe(config, result)
    session.journal.finish(
        {
            "row": config.variants[0],
            "weights": config.ot.weights,
            "mixing": config.ot.mixing,
            "epsilon": config.ot.epsilon,
            "label_transport": config.ot.label_transport,
            "meta_loss_factor": config.stage2.meta_loss_factor,
            "learning_rate": config.stage2.optimizer.learning_rate,
            "imbalance_factor": result["imbalance_factor"],
            "label_noise_rate": config.data.label_noise_rate,
            "seed": config.run.seed,
        },
        {key: value for key, value in result["test"].items() if key != "class_error"},
        torch.tensor(result["confusion"]).numpy(),
        data.class_names,
        probabilities,
        test.labels.cpu(),
        embeddings,
        test.inputs[:1000],
    )
    ledger.write_result(folder, result)
    checkpoints.remove_states(folder / "checkpoints")


def _training_predictions(session: Session, net: Net, weighting: Weighting) -> Tensor:
    """(N,) what the net takes the training samples for; replicated, called on every process.

    In TensorBoard, the training samples of lowest weight, and the training set in the projector.
    """
    config, train, class_names = session.config, session.data.train, session.data.class_names
    local, embeddings = embed(session, net, train, image_views(session).transform)
    predicted = distributed.gather_by_index(local.index, local.probabilities, len(train)).argmax(1)
    if not config.run.tensorboard:
        return predicted
    transported = weighting.suggested_labels()
    suggested = predicted if transported is None else transported
    weights = weighting.weights.float()
    session.journal.suspects(train.inputs, train.labels, suggested, weights, class_names)
    columns = {
        "class": [class_names[label] for label in train.labels.tolist()],
        "weight": [f"{weight:.3g}" for weight in weights.tolist()],
        "suggested": [class_names[label] for label in suggested.tolist()],
    }
    session.journal.project("train", embeddings, train.inputs, columns)
    return predicted


def _class_mass(weights: Tensor, data: Datasets) -> list[float]:
    mass = torch.zeros(data.num_classes, dtype=torch.float64, device=weights.device)
    mass.index_add_(0, data.train.labels, weights.double())
    return (mass / mass.sum()).tolist()
