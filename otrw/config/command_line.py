"""From a command line to a config."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml
from jsonargparse import ArgumentParser

from otrw.config.earlier_names import RENAMED, with_present_names
from otrw.config.resume import fixed_differences
from otrw.config.settings import check_settings, config_from, leaves, merged, remedy_for, sections, value_of
from otrw.config.tree import Config, to_dict
from otrw.config.variant_list import with_variant_list
from otrw.config.yaml_files import is_plain_text, load_yaml
from otrw.errors import UserError, check, shown

PRESETS = Path(__file__).resolve().parent / "presets"
PRESET_OF_OWN = {"folder": "own_images", "table": "own_images", "embeddings": "own_embeddings"}
"""What data of one's own start from where no --config is given."""


class Given(NamedTuple):
    """What a command line says."""

    settings: dict
    """Nested; files and overrides merged in their order, the later ones winning."""
    preset: str | None
    """The last preset named; None where there is none."""
    own: dict
    """As settings, without what comes from presets: what the caller says in person."""
    display: str | None
    """--help, --print_config or --print_config=FLAGS, where it is asked for."""


def parse_config(arguments: Sequence[str], default: str = "digits_lt", description: str = "") -> Config:
    """Config from ``--config FILE_OR_PRESET`` and overrides ``--section.key value``; without --config the default preset, or
    the one of `PRESET_OF_OWN` where data.source is named there.

    With ``--run.resume FOLDER`` the settings are those of the folder; beside it only folders and cadence may be given
    (`otrw.config.resume.MAY_CHANGE`). Raises UserError.
    """
    arguments = with_variant_list(list(arguments))
    given = _read(arguments, default)
    if given.display is not None and given.display.startswith(("-h", "--help")):
        _parser(description).parse_args(["--help"])
    config = config_from(given.settings)
    has_no_use = config.data.source == "digits" and "root" in given.own.get("data", {}) and "source" not in given.own["data"]
    check(
        not has_no_use or config.run.resume is not None,  # a run that goes on has its source in its folder
        "data.root",
        config.data.root,
        "come with a data set that has files, not with digits",
        "add --data.source cifar10 or --config cifar10_lt, or for your own data --data.source folder, table or embeddings",
    )
    if given.display is not None:
        _parser(description).parse_args(["--config", _quoted(to_dict(config)), given.display])
    if config.run.resume is None:
        return replace(config, run=replace(config.run, preset=given.preset or config.run.preset))
    folder = Path(config.run.resume)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run.resume must be a run's folder, got {str(folder)!r}, which has no config.yaml")
    if (folder / "environment.json").is_file():
        raise UserError(f"run.resume must be a run's folder, got the variant {str(folder)!r}; give {str(folder.parent)!r}")
    stored = parse_config(["--config", str(folder / "config.yaml")])
    config = parse_config(["--config", str(folder / "config.yaml"), *_without(arguments, "--run.resume")])
    for path, (old, new) in fixed_differences(to_dict(stored), to_dict(config)).items():
        raise UserError(f"{path} must stay {old!r} when a run goes on, got {new!r}; start a new run for other settings")
    return replace(config, run=replace(config.run, resume=str(folder)))


def _read(arguments: list[str], default: str) -> Given:
    settings: dict = {}
    own: dict = {}
    preset = display = None
    has_file = False
    pieces = iter(arguments)
    for piece in pieces:
        if not is_plain_text(piece):
            raise UserError(f"an argument must be UTF-8 without NUL, got {shown(piece)}")
        name, separator, value = piece.removeprefix("--").partition("=")
        if piece in ("-h", "--help") or (piece.startswith("--") and name == "print_config"):
            display = piece
            continue
        path = RENAMED.get(name, name)
        if not piece.startswith("--") or (path != "config" and path not in leaves()):
            raise UserError(_refusal(piece, path))
        if not separator:
            value = next(pieces, "--")
            if value.startswith("--"):
                raise UserError(f"--{name} must be followed by a value; --help lists every setting")
            if not is_plain_text(value):
                raise UserError(f"--{name} must be UTF-8 without NUL, got {shown(value)}")
        if path == "config":
            has_file = True
            file, is_preset = _config_file(value)
            found = _settings_of(file)
            if is_preset:
                preset = file.stem
        else:
            is_preset = False
            found = _nested(path, value_of(path, value))
            check_settings(found, "")
        settings = merged(settings, found)
        own = own if is_preset else merged(own, found)
    if not has_file:
        source = settings.get("data", {}).get("source")
        file, is_preset = _config_file(PRESET_OF_OWN.get(source, default))
        settings = merged(_settings_of(file), settings)
        preset = file.stem if is_preset else None
    return Given(settings, preset, own, display)


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


def _refusal(piece: str, path: str) -> str:
    if not piece.startswith("--"):
        return f"unrecognized argument {shown(piece)}; settings are given as --section.key value"
    if path in sections():
        example = next(leaf for leaf in leaves() if leaf.startswith(f"{path}."))
        return f"--{path} is a section; give its settings one by one, such as --{example}"
    return f"--{shown(path)[1:-1]} is no setting; {remedy_for(path)}"


def _nested(path: str, value: object) -> dict:
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _settings_of(file: Path) -> dict:
    """A file's settings, under the names that they have now. Raises UserError."""
    settings = load_yaml(file)
    for earlier, present in RENAMED.items():
        if earlier in settings and present in settings:
            raise UserError(f"{file}: {earlier} is the earlier name of {present}; keep one of them")
    settings = with_present_names(settings)
    check_settings(settings, str(file))
    return settings


def _config_file(name: str) -> tuple[Path, bool]:
    """The file that --config names, and whether it is a preset's."""
    try:
        if Path(name).is_file():
            return Path(name), Path(name).resolve().parent == PRESETS
    except OSError:
        pass  # a name that is too long
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name in known:
        return PRESETS / f"{name}.yaml", True
    raise UserError(f"--config must name a file or one of the presets {', '.join(known)}, got {shown(name)}")


def _parser(description: str) -> ArgumentParser:
    """The parser that writes --help and --print_config."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--config", action="config", help="a preset's name or a YAML file; may be given several times")
    parser.add_class_arguments(Config)
    return parser


def _quoted(settings: dict) -> str:
    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    Dumper.add_representer(tuple, lambda dumper, values: dumper.represent_list(values))
    return yaml.dump(settings, Dumper=Dumper)
