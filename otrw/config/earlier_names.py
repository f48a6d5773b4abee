"""Names that settings had in records and folders written before: they are read as long as such files exist."""

from collections.abc import Mapping

RENAMED = {"rows": "variants"}


def with_present_names(settings: Mapping) -> dict:
    """A config as a nested dict, each setting under the name that it has now."""
    return {RENAMED.get(key, key): value for key, value in settings.items()}
