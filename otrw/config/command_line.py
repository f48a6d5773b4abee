"""From a command line to a config."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from otrw.config.earlier_names import RENAMED, with_present_names
from otrw.config.resume import fixed_differences
from otrw.config.tree import Config, to_dict
from otrw.config.variant_list import with_variant_list
from otrw.errors import UserError

PRESETS = Path(__file__).resolve().parent / "presets"


def parse_config(arguments: Sequence[str], default: str = "digits_lt", description: str = "") -> Config:
    """Config from ``--config FILE_OR_PRESET`` and overrides ``--section.key value``; without --config the default preset.

    With ``--run.resume FOLDER`` the settings are those of the folder; beside it only folders and cadence may be given
    (`otrw.config.resume.MAY_CHANGE`). Raises UserError.
    """
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="a preset's name or a YAML file; may be given several times")
    parser.add_class_arguments(Config)
    given, arguments = list(arguments), with_variant_list(_with_preset_paths(list(arguments), default))
    try:
        namespace = parser.parse_args(arguments)
        config = parser.instantiate(namespace)
        config = Config(**{key: value for key, value in vars(config).items() if key != "config"})
    except ArgumentError as error:
        raise UserError(_one_line(error)) from None
    if config.run.resume is None:
        preset = _preset_named_last(arguments) or config.run.preset
        return replace(config, run=replace(config.run, preset=preset))
    folder = Path(config.run.resume)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run.resume must be a run's folder, got {str(folder)!r}, which has no config.yaml")
    if (folder / "environment.json").is_file():
        raise UserError(f"run.resume must be a run's folder, got the variant {str(folder)!r}; give {str(folder.parent)!r}")
    stored = parse_config(["--config", str(folder / "config.yaml")])
    config = parse_config(["--config", str(folder / "config.yaml"), *_without(given, "--run.resume")])
    for path, (old, new) in fixed_differences(to_dict(stored), to_dict(config)).items():
        raise UserError(f"{path} must stay {old!r} when a run goes on, got {new!r}; start a new run for other settings")
    return replace(config, run=replace(config.run, resume=str(folder)))


def _with_preset_paths(arguments: list[str], default: str) -> list[str]:
    """Replace a preset's name after --config by its file; put the default preset first where none is named."""
    result, named = [], False
    pieces = iter(arguments)
    for piece in pieces:
        key, separator, value = piece.partition("=")
        if key == "--config":
            named = True
            value = value if separator else next(pieces, "")
            result += ["--config", _config_file(value)]
        else:
            name = key.removeprefix("--")
            result.append(f"--{RENAMED[name]}{separator}{value}" if key.startswith("--") and name in RENAMED else piece)
    return result if named else ["--config", _config_file(default), *result]


def _without(arguments: list[str], flag: str) -> list[str]:
    """The arguments without a flag and its value."""
    result = []
    pieces = iter(arguments)
    for piece in pieces:
        if piece == flag:
            next(pieces, None)
        elif not piece.startswith(f"{flag}="):
            result.append(piece)
    return result


def _preset_named_last(arguments: list[str]) -> str | None:
    """The last preset among the files after --config; None where there is none."""
    files = [Path(value) for key, value in pairwise(arguments) if key == "--config"]
    presets = [path.stem for path in files if path.parent.resolve() == PRESETS.resolve()]
    return presets[-1] if presets else None


def _config_file(name: str) -> str:
    """What jsonargparse takes for a config: a path, or the text of a file in which settings have earlier names."""
    if Path(name).is_file():
        try:
            settings = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"--config {name} must be a YAML file ({' '.join(str(error).split())[:120]})") from None
        if not isinstance(settings, dict):
            raise UserError(
                f"--config {name} must hold sections of settings, got {type(settings).__name__}; see --print_config"
            )
        return name if settings.keys().isdisjoint(RENAMED) else yaml.safe_dump(with_present_names(settings))
    preset = PRESETS / f"{name}.yaml"
    if preset.is_file():
        return str(preset)
    known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    raise UserError(f"--config must name a file or one of the presets {known}, got {name!r}")


def _one_line(error: ArgumentError) -> str:
    """jsonargparse's message as dotted path, rule and value on one line."""
    text = " ".join(str(error).split())
    found = re.match(r'Parser key "([^"]+)": (?:Expected an? (.*?)\. Got value: (.*)|(.*))$', text)
    if found is None:
        return f"{text}; --help lists every setting"
    key, rule, value, other = found.groups()
    if other is not None:
        return f"{key}: {other}; --help lists every setting"
    rule = re.sub(r"^typing\.Literal\[(.*)\]$", r"one of \1", rule)
    rule = re.sub(r"^<class '(.*)'>$", r"of type \1", rule)
    return f"{key} must be {rule}, got {value!r}"
