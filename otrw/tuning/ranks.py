"""A training run of several processes inside one Ray placement group: one actor a process.

Ray Train would do, but inside Tune its placement group outlives a trial that is stopped early (ray-project/ray#54305). These
actors live in the trial's own group and end with it.
"""

import os
import socket
from collections.abc import Callable, Mapping

import ray
import ray.exceptions
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from otrw.config import Config

POLL_SECONDS = 0.3


def train_on_ranks(
    config: Config,
    num_processes: int,
    cpus: float,
    gpus: float,
    report: Callable[[dict], None],
    searched: Mapping[str, object] | None,
) -> None:
    """otrw.training.run.run on so many processes, rank i in bundle i of the current placement group.

    cpus, gpus: of one process. report is called here with every line of rank 0. Raises what a rank raises.
    """
    group = get_current_placement_group()
    assert group is not None
    ranks = [
        _Rank.options(  # type: ignore[attr-defined]
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=2,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        ).remote()
        for index in range(num_processes)
    ]
    try:
        nodes = ray.get([rank.node.remote() for rank in ranks])
        port = ray.get(ranks[0].free_port.remote())
        shared = {"MASTER_ADDR": nodes[0], "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
        waiting = [
            # a process with GPUs of its own sees them as numbers from 0
            rank.train.remote(
                config, searched, shared | {"RANK": str(i), "LOCAL_RANK": "0" if gpus else str(nodes[:i].count(nodes[i]))}
            )
            for i, rank in enumerate(ranks)
        ]
        num_reported = 0
        while waiting:
            done, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
            lines = ray.get(ranks[0].lines.remote(num_reported))
            for line in lines:
                report(line)
            num_reported += len(lines)
            ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for rank in ranks:
            ray.kill(rank)


@ray.remote
class _Rank:
    """One process of a run; `lines` answers while `train` works."""

    def __init__(self) -> None:
        self._lines: list[dict] = []

    def node(self) -> str:
        return ray.util.get_node_ip_address()

    def free_port(self) -> int:
        with socket.socket() as listener:
            listener.bind(("", 0))
            return listener.getsockname()[1]

    def train(self, config: Config, searched: Mapping[str, object] | None, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        from otrw import distributed  # after the variables: accelerate reads them when it is imported
        from otrw.training.run import run

        run(config, report=self._lines.append, searched=searched)
        distributed.shut_down()

    def lines(self, start: int) -> list[dict]:
        return self._lines[start:]
