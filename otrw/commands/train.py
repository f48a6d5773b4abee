"""Train on long-tailed data: stage 1 once, then every variant of stage 2 on it."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from otrw import distributed
from otrw.analysis.summary import print_result
from otrw.commands.invocation import command_line, train_command
from otrw.config import Config, flatten, to_dict
from otrw.config.command_line import parse_config
from otrw.config.help import overview, section_in_full
from otrw.errors import RunEndedError, UserError, UserInterrupt, check
from otrw.training.ending import told
from otrw.training.process_group import start_accelerator
from otrw.training.run import RunResult, run
from otrw.training.stop import StopRequest

SEEDS_OF_THE_EXAMPLE = 3
"""Seeds that are trained where nothing at all is asked for: one says little about 602 test images."""


def main(arguments: Sequence[str]) -> None:
    """Parse, train, print the table."""
    options, settings = _parse(arguments)
    if options.help is not None:
        print(_help(options.help, settings))
        return
    config = parse_config(settings, description=__doc__ or "")
    console = Console() if distributed.is_main() else None
    num_seeds = options.seeds or (1 if arguments else SEEDS_OF_THE_EXAMPLE)
    with StopRequest().listening() as stop, told(None, stop):
        if num_seeds == 1:
            results = [run(config, console=console, stop=stop)]
        else:
            results = _train_seeds(config, num_seeds, settings, console, stop)
    if console is not None:
        runs = [(result.folder, result.variants) for result in results]
        has_audit = config.data.is_own and any(variant.startswith("ot") for variant in config.variants)
        commands = _next_commands([folder for folder, _ in runs], settings, has_audit)
        print_result(console, runs, show_classes=options.show_classes, next_commands=commands)
    distributed.exit_together()


def _train_seeds(
    config: Config, num_seeds: int, settings: Sequence[str], console: Console | None, stop: StopRequest
) -> list[RunResult]:
    """One run a seed, in one process group; runs that are there already go on where they stopped."""
    if config.run.resume is not None:
        raise UserError("--seeds must not come with --run.resume, which goes on with one seed's run; leave one of them out")
    start_accelerator(config.run)
    name = config.run.name or distributed.on_main(lambda: f"{config.run.preset or 'run'}-{datetime.now():%Y%m%d-%H%M%S}")
    others = _without(settings, "--run.name")
    command = train_command(["--seeds", str(num_seeds), "--run.name", name, *others])
    seeds = range(config.run.seed, config.run.seed + num_seeds)
    if console is not None:
        console.print(
            f"{num_seeds} seeds ({', '.join(map(str, seeds))}), one run each, since one seed says little.\n"
            f"Interrupted, this goes on: {command}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    results = []
    for seed in seeds:
        seeded = replace(config, run=replace(config.run, seed=seed, name=f"{name}-seed{seed}"))
        if console is not None:
            console.print(f"\nSeed {seed}", highlight=False)
        try:
            results.append(run(_as_begun(seeded), console=console, stop=stop))
        except KeyboardInterrupt:
            raise UserInterrupt(command=command, signal_number=stop.signal) from None
        except RunEndedError as ended:
            ended.command = command
            raise
    return results


def _as_begun(config: Config) -> Config:
    """The config that goes on with the run of this name, where there is one and it was begun with the same settings."""
    folder = Path(config.run.directory).expanduser() / str(config.run.name)
    if not distributed.on_main(lambda: (folder / "config.yaml").is_file()):
        return config
    stored = parse_config(["--run.resume", str(folder)])
    asked, begun = flatten(to_dict(config)), flatten(to_dict(stored))
    for path, value in asked.items():
        if begun.get(path) != value and (path == "run.seed" or not path.startswith("run.")):
            raise UserError(
                f"{path} must be {begun.get(path)!r}, as {folder} was begun with, got {value!r}; choose another --run.name"
            )
    return stored


def _next_commands(folders: Sequence[Path], settings: Sequence[str], has_audit: bool = False) -> list[tuple[str, str]]:
    """The most useful commands after a run: (a word on what it shows, the command)."""
    names = [str(folder) for folder in folders]
    watched = names[0] if len(names) == 1 else str(folders[0].parent)
    if len(names) > 1:
        third = ("table", command_line("table", names))
    elif _only(settings, "--run.resume"):
        third = ("seeds", train_command(["--seeds", "3", "--config", str(folders[0] / "config.yaml")]))
    else:
        third = ("seeds", train_command(["--seeds", "3", *settings]))
    return [
        *([("labels", command_line("audit", names[:1]))] if has_audit else []),
        ("page", command_line("report", names)),
        ("curves", shlex.join(["tensorboard", "--logdir", watched])),
        third,
    ]


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the command itself, and the settings that are left."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--show-classes", action="store_true")
    parser.add_argument("-h", "--help", nargs="?", const="")
    try:
        options, settings = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())}; --help lists every option") from None
    check(options.seeds is None or options.seeds >= 1, "--seeds", options.seeds, "be >= 1")
    return options, settings


def _help(section: str, settings: Sequence[str]) -> str:
    """What --help says: how it is called, then every setting, or those of one section in full."""
    configs = [piece for name in ("--config",) for piece in _only(settings, name)]
    values = flatten(to_dict(parse_config(configs)))
    if section:
        return section_in_full(section, values)
    train = command_line("train")
    script = train.removeprefix("python ")
    return f"""{__doc__}

Usage: {train} [OPTIONS] [--SECTION.KEY VALUE ...]

  {train}
      scikit-learn's digits, {SEEDS_OF_THE_EXAMPLE} seeds; no download, no GPU
  {train} --config cifar10_lt --data.root data --ot.epsilon 0.05
  {train} --variants ot_meta,class_balanced_meta --seeds 5
  {train} --run.resume runs/NAME
      go on after an interruption
  accelerate launch {script} --config cifar100_lt
      on all GPUs of this machine

  --config PRESET_OR_FILE  a preset's name or a YAML file; can be repeated
  --seeds N                one run a seed, from run.seed on; then means
  --show-classes           add the error by class to the table at the end
  --print_config           every setting as YAML, and no training
  --help [SECTION | KEY]   this, or a section in full, such as --help ot

Settings, with the values that hold {"for " + " ".join(configs[1::2]) if configs else "when none is given"}

{overview(values)}"""


def _only(arguments: Sequence[str], name: str) -> list[str]:
    """The occurrences of one option with their values, written as two words."""
    found, waiting = [], list(arguments)
    while waiting:
        key, separator, value = waiting.pop(0).partition("=")
        if key == name:
            found += [name, value if separator or not waiting else waiting.pop(0)]
    return found


def _without(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments without one option and its value."""
    left, waiting = [], list(arguments)
    while waiting:
        piece = waiting.pop(0)
        key, separator, _ = piece.partition("=")
        if key != name:
            left.append(piece)
        elif not separator and waiting:
            waiting.pop(0)
    return left
