"""Two machines as the network sees them: namespaces joined by a cable (a veth pair), a launcher in each.

Needs the right to make network namespaces, and ``ip`` of iproute2.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from whole_runs import TINY, assert_same_run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TIMEOUT_SECONDS = 20


def ip(*arguments):
    subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=True)


class Host(NamedTuple):
    namespace: str
    device: str
    address: str


@pytest.fixture
def hosts():
    """Two hosts that see each other and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("ip, of iproute2, is not installed")
    mark = f"{os.getpid() % 10_000}"
    pair = [Host(f"otrw{mark}{side}", f"veth{mark}{side}", f"10.213.7.{number}") for side, number in (("a", 1), ("b", 2))]
    made = []
    try:
        try:
            for host in pair:
                ip("netns", "add", host.namespace)
                made.append(host)
            ip("link", "add", pair[0].device, "type", "veth", "peer", "name", pair[1].device)
            for host in pair:
                ip("link", "set", host.device, "netns", host.namespace)
                ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.device)
                ip("-n", host.namespace, "link", "set", host.device, "up")
                ip("-n", host.namespace, "link", "set", "lo", "up")
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', error)}")
        yield pair
    finally:
        for host in made:
            ip("netns", "del", host.namespace)


def launch(folder, arguments, rank, first, host, port=29_511):
    """accelerate's launcher of one of two machines."""
    command = ["ip", "netns", "exec", host.namespace, sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_machines=2", "--num_processes=2", f"--machine_rank={rank}", f"--main_process_ip={first.address}"]
    command += [f"--main_process_port={port}", "--rdzv_backend=static", "--mixed_precision=no", "--dynamo_backend=no"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": host.device}
    with (folder / f"host-{rank}.log").open("w") as log:
        return subprocess.Popen(
            [*command, "launch/train.py", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def begin(folder, hosts, name):
    arguments = [*TINY, "--data.cache=", f"--run.directory={folder}", f"--run.name={name}"]
    arguments.append(f"--run.timeout_seconds={TIMEOUT_SECONDS}")
    return [launch(folder, arguments, rank, hosts[0], host) for rank, host in enumerate(hosts)]


def said(folder):
    return [(folder / f"host-{rank}.log").read_text() for rank in range(2)]


def test_two_machines_of_one_process_equal_one_machine_of_two(tmp_path, hosts, tally):
    held = tally("two machines", "the bits of one machine with two processes")
    processes = begin(tmp_path, hosts, "two")
    try:
        codes = [process.wait(400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], said(tmp_path)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "launch/train.py"]
    subprocess.run(
        [*launcher, *TINY, "--data.cache=", f"--run.directory={tmp_path}", "--run.name=one"],
        cwd=ROOT,
        capture_output=True,
        timeout=400,
        check=True,
    )
    assert_same_run(tmp_path / "two", tmp_path / "one")
    held()


def test_a_cut_cable_ends_both_machines(tmp_path, hosts, tally):
    held = tally("the link between two machines is cut", "both end at the timeout, with one line and the command")
    processes = begin(tmp_path, hosts, "cut")
    lines = tmp_path / "cut" / "stage1" / "metrics.jsonl"
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end and not lines.is_file():
            time.sleep(0.05)
        ip("-n", hosts[1].namespace, "link", "set", hosts[1].device, "down")
        cut = time.monotonic()
        while time.monotonic() < cut + TIMEOUT_SECONDS + 200 and not all("error: " in text for text in said(tmp_path)):
            time.sleep(0.05)
        told = time.monotonic() - cut
        codes = [process.wait(200) for process in processes]
        gone = time.monotonic() - cut
        print(
            f"after a cut, timeout {TIMEOUT_SECONDS} s: both said so at {told:.1f} s, both launchers were gone at {gone:.1f} s"
        )
    finally:
        for process in processes:
            process.kill()
    assert 0 not in codes
    for text in said(tmp_path):
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert "another process did not answer" in line
        assert f"go on with: YOUR_LAUNCHER launch/train.py --run.resume {tmp_path / 'cut'}" in line
    held()
