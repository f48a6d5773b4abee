"""Threads are chosen by net and cores, and the user's choice wins over a launcher's default."""

import os
import subprocess
import sys

import pytest

from otrw.training.threads import available_cores, choose_threads, leaves_bf16_unused, users_variable

TORCHRUN, ACCELERATE = {"TORCHELASTIC_RUN_ID": "x"}, {"ACCELERATE_MIXED_PRECISION": "no"}


@pytest.mark.parametrize(
    ("net", "cores", "processes", "expected"),
    [
        ("small", 16, 1, 1),
        ("linear", 16, 1, 1),
        ("mlp", 16, 2, 1),
        ("resnet32", 16, 1, 16),
        ("resnet32", 16, 4, 4),
        ("resnet32", 2, 4, 1),
        ("resnet32", 7, 2, 3),
    ],
)
def test_a_small_net_takes_one_thread_and_others_share_the_cores(net, cores, processes, expected):
    chosen = choose_threads(net, num_cores=cores, local_processes=processes)
    assert chosen.number == expected


def test_the_setting_wins_over_the_variable_and_the_variable_over_the_choice():
    both = choose_threads("small", num_cores=8, local_processes=1, setting=3, user_variable=5)
    assert both == (3, "run.threads")
    assert choose_threads("resnet32", num_cores=8, local_processes=1, user_variable=5) == (5, "OMP_NUM_THREADS")


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE])
def test_one_thread_below_a_launcher_is_the_launchers_unless_the_launcher_was_started_with_it(launcher):
    environment = launcher | {"OMP_NUM_THREADS": "1"}
    assert users_variable(environment, {"PATH": "/bin"}) is None
    assert users_variable(environment, None) is None
    assert users_variable(environment, {"OMP_NUM_THREADS": "1"}) == 1


def test_without_a_launcher_or_with_more_threads_the_variable_is_the_users():
    assert users_variable({"OMP_NUM_THREADS": "1"}, {}) == 1
    assert users_variable(TORCHRUN | {"OMP_NUM_THREADS": "4"}, {}) == 4
    assert users_variable({"OMP_NUM_THREADS": "4,2"}, {}) == 4


@pytest.mark.parametrize("text", ["", "0", "many", "-1"])
def test_a_variable_without_a_number_of_threads_says_nothing(text):
    assert users_variable({"OMP_NUM_THREADS": text}, {}) is None


@pytest.mark.parametrize(
    ("content", "most"), [("200000 100000\n", 2), ("150000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None)]
)
def test_a_containers_quota_limits_the_cores(content, most, tmp_path):
    (tmp_path / "cpu.max").write_text(content)
    own = available_cores(tmp_path / "missing")
    assert own == len(os.sched_getaffinity(0))
    assert available_cores(tmp_path / "cpu.max") == (own if most is None else min(own, most))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show the parent's environment")
@pytest.mark.parametrize("users", [None, "1"])
def test_below_torchrun_itself_the_users_choice_is_told_from_the_launchers(users, tmp_path):
    script = tmp_path / "show.py"
    script.write_text(
        "import os\nfrom otrw.training import threads\n"
        "found = threads.users_variable(os.environ, threads._environment_of_parent())\n"
        "print(os.environ['OMP_NUM_THREADS'], found)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": users} if users else {}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == [f"1 {users}"] * 2, done.stderr[-1000:]


@pytest.mark.parametrize(
    ("net", "precision", "capabilities", "expected"),
    [
        ("resnet32", "no", {"avx2": True, "avx512_bf16": True}, True),
        ("resnet32", "no", {"avx2": True, "amx_bf16": True}, True),
        ("resnet32", "no", {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ("resnet32", "no", {}, False),
        ("resnet32", "bf16", {"avx512_bf16": True}, False),
        ("small", "no", {"avx512_bf16": True}, False),
    ],
)
def test_bf16_is_offered_where_the_cpu_has_it_and_the_net_gains_by_it(net, precision, capabilities, expected):
    assert leaves_bf16_unused(net, precision, capabilities) == expected
