"""To Ray: one of its own on this machine, or a running cluster."""

import logging
import os
import socket
from pathlib import Path
from typing import Any

from otrw.errors import RunEndedError, UserError, first_line

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package
CONNECT_SECONDS = 5.0
CHECK_SECONDS = 120.0
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; silences a warning about it
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records and TensorBoard logs are the runs' own
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed setting has no value
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",  # no banner: a line a trial is ours
}


def connect(address: str | None, cpus: float) -> dict[str, float]:
    """Start Ray here (None), or join a cluster ("auto", or host:port of its head). Returns its resources.

    A Ray that this process uses already stays. cpus: of a process, its number of threads. Raises UserError where no
    cluster answers, RunEndedError where Ray does not start here.
    """
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of trials that are tried again; ours is a line
    if ray.is_initialized():
        return ray.cluster_resources()
    inherited = os.environ.get("PYTHONPATH")
    variables = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])]),
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
    }
    runtime = {"env_vars": variables}
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        try:
            ray.init(address="local", include_dashboard=False, runtime_env=runtime, **quiet)
        except Exception as error:  # ray has no one type for it
            raise RunEndedError(
                f"Ray did not start on this machine ({first_line(error)}); it may be short of memory, processors or disk"
            ) from None
    else:
        _check_reachable(address)
        try:
            ray.init(address=address, runtime_env=runtime, **quiet)
        except Exception as error:  # ray has no one type for it
            raise UserError(_refused(address, str(error))) from None
    return ray.cluster_resources()


def check_nodes(address: str, folder: Path) -> None:
    """Refuse a cluster with a node that lacks this code, that does not see the search's folder, or that starts nothing."""
    import ray
    from ray.exceptions import ActorDiedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    probes: list[Any] = [
        ray.remote(_Probe)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in nodes
    ]
    answers = [probe.sees.remote(str(folder / "search.yaml")) for probe in probes]
    for node, answer in zip(nodes, answers, strict=True):
        where = node["NodeManagerAddress"]
        try:
            seen = ray.get(answer, timeout=CHECK_SECONDS)
        except Exception as error:  # ray has no one type for it
            if isinstance(error, ActorDiedError) and "never ran" in str(error):
                raise UserError(_refused(address, "it starts no actor")) from None
            raise UserError(
                f"every node must have this package at {ROOT} or installed, but {where} could not load it "
                f"({type(error).__name__})"
            ) from None
        if not seen:
            raise UserError(f"--storage must be a folder that every node sees, but {folder} is not on {where}")


class _Probe:
    """An actor, as trials are: a cluster with other authentication runs tasks of ours, but no actors."""

    def sees(self, path: str) -> bool:
        import otrw.tuning.trial  # noqa: F401  whether it can be loaded here

        return Path(path).is_file()


def _check_reachable(address: str) -> None:
    """A quick no for host:port where nothing listens: ray would try for half a minute."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address must be auto or host:port of a cluster's head, got {address!r}; run on one of its nodes")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise UserError(f"--address must be a running Ray cluster, got {address} ({reason}); see ray start --head") from None


def _refused(address: str, reason: str) -> str:
    if address == "auto" and "Could not find any running" in reason:
        return "--address must be a running Ray cluster, got auto, but none runs on this machine; see ray start --head"
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return (
        f"--address {address}: the cluster did not let this process in ({' '.join(reason.split())[:100]}); RAY_AUTH_MODE "
        f"(here: {mode}) must be the same as where the cluster was started, disabled or token, and the token too; so must "
        "the version of ray"
    )
