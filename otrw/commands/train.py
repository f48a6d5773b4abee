"""Train on long-tailed data: stage 1 once, then every variant of stage 2 on top of it.

accelerate launch launch/train.py                                     # the digits example, under a minute
accelerate launch launch/train.py --config cifar10_lt --data.root data --ot.epsilon 0.05
accelerate launch --config_file launch/accelerate/cpu_2.yaml launch/train.py --config cifar10_lt
python launch/train.py --print_config                                 # every setting, as YAML
accelerate launch launch/train.py --run.resume runs/NAME              # go on after an interruption
"""

from collections.abc import Sequence

from rich.console import Console

from otrw import distributed
from otrw.analysis.summary import print_result
from otrw.config.command_line import parse_config
from otrw.training.run import run


def main(arguments: Sequence[str]) -> None:
    """Parse, train, print the table."""
    config = parse_config(arguments, description=__doc__ or "")
    console = Console() if distributed.is_main() else None
    result = run(config, console=console)
    if console is not None:
        print_result(console, result.folder, result.variants)
    distributed.shut_down()
