"""What a result.json must hold to be compared: a damaged one is left out with a line, and never shown in part."""

import math
from collections.abc import Mapping

from otrw.config.variants import TITLES
from otrw.errors import UserError


def check_result(result: Mapping) -> None:
    """Raise UserError where a part of result.json is there but not of the kind that every version writes."""
    test, model, weights = (result.get(key, {}) for key in ("test", "model", "weights"))
    names, matrix = result.get("class_names"), result.get("confusion")
    num_classes = len(names) if isinstance(names, list) else 0
    rules = {
        "row": (str(result.get("row")) in TITLES, f"one of {', '.join(TITLES)}"),
        "imbalance_factor": (_is_number(result.get("imbalance_factor")), "a number"),
        "seed": (isinstance(result.get("seed"), int) and not isinstance(result["seed"], bool), "a whole number"),
        "test": (isinstance(test, dict) and _is_number(test.get("error")), "figures, with a number as error"),
        "best_epoch_test_error": (_is_number(result.get("best_epoch_test_error"), or_none=True), "a number"),
        "model": (isinstance(model, dict) and _is_number(model.get("width_multiplier", 1)), "a net's name and sizes"),
        "weights": (isinstance(weights, dict) and _is_list(weights.get("class_mass"), num_classes), "figures of weights"),
        "class_names": (names is None or num_classes > 0, "a list"),
        "given_sizes": (_is_list(result.get("given_sizes"), num_classes), "a number a class"),
        "true_sizes": (_is_list(result.get("true_sizes"), num_classes), "a number a class"),
        "confusion": (
            matrix is None or (_are_lists(matrix, num_classes) and all(_is_list(line, num_classes) for line in matrix)),
            "a square of numbers",
        ),
    }
    if isinstance(test, dict):
        errors = test.get("class_error")
        is_good = isinstance(errors, list) and len(errors) == num_classes and all(_is_number(e, or_none=True) for e in errors)
        rules["test.class_error"] = (errors is None or is_good, "a number a class")
    for key, (is_good, rule) in rules.items():
        if not is_good:
            value = test["class_error"] if key == "test.class_error" else result.get(key)
            raise UserError(f"result.json: {key} must be {rule}, got {str(value)[:40]!r}")


def _is_number(value: object, or_none: bool = False) -> bool:
    if value is None:
        return or_none
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)  # figures beyond float are refused when the file is read


def _is_list(value: object, length: int) -> bool:
    """Whether it is absent, or a list of so many numbers."""
    return value is None or (isinstance(value, list) and len(value) == length and all(map(_is_number, value)))


def _are_lists(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(isinstance(one, list) for one in value)
