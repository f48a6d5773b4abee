"""What a run trains is what it says: the same on every process, before and after an interruption, and from a given stage 1."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from processes import run_distributed
from safetensors import safe_open

from otrw.config.command_line import parse_config
from otrw.errors import UserError
from otrw.records import ledger
from otrw.training import checkpoints
from otrw.training.agreement import check_same
from otrw.training.run import run

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--stage1.epochs=2",
    "--stage2.epochs=2",
    "--stage2.rounds=1",
    "--run.tensorboard=false",
    "--data.cache=",
    "--run.cpu=true",
]


def config_of(folder, name, *arguments):
    return parse_config([*TINY, f"--run.directory={folder}", f"--run.name={name}", "--variants=[ot_meta]", *arguments])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A finished run on the preset's 40 % wrong labels."""
    folder = tmp_path_factory.mktemp("noisy")
    run(config_of(folder, "a"))
    return folder / "a"


def check_facts_that_differ(differ):
    import torch.distributed as dist

    try:
        check_same({"ot.epsilon": "0.1" if dist.get_rank() == 0 or not differ else "0.2", "run.seed": "0"})
    except UserError as error:
        return str(error)
    return "same"


def test_processes_with_different_settings_name_the_setting_on_every_process():
    assert run_distributed(check_facts_that_differ, 2, False) == ["same", "same"]
    messages = run_distributed(check_facts_that_differ, 2, True)
    assert messages[0] == messages[1]
    assert messages[0].startswith("ot.epsilon must be the same on every process, got 0.1 on process 0 and 0.2 on process 1")


def test_a_process_with_another_seed_is_refused_before_the_first_step(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\n"
        "from otrw.commands.exit import exit_with_message\n"
        "from otrw.commands.train import main\n"
        "seed = '7' if os.environ['RANK'] == '1' else '0'\n"
        "exit_with_message(lambda: main([*sys.argv[1:], '--run.seed', seed]))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(script), *TINY, f"--run.directory={tmp_path / 'runs'}"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # without it the launcher speaks first, of threads
    )
    assert done.returncode != 0
    message = "error: run.seed must be the same on every process, got 0 on process 0 and 7 on process 1"
    assert done.stderr.startswith(message)
    before_the_launchers_report = done.stderr.partition("ChildFailedError")[0]  # which ends with the message once more
    assert before_the_launchers_report.count(message) == 1
    assert not (tmp_path / "runs").exists()


def test_a_net_of_clean_labels_is_refused_by_a_run_with_wrong_ones(noisy, tmp_path):
    clean = config_of(tmp_path, "clean", "--data.label_noise=none", "--data.label_noise_rate=0")
    net = run(clean).folder / "stage1" / "model.safetensors"
    with pytest.raises(UserError, match="given_labels"):
        run(config_of(tmp_path, "b", f"--stage1.checkpoint={net}"))
    assert not (tmp_path / "b").exists()


def test_a_given_stage_1_is_recorded_with_the_settings_that_it_had(noisy, tmp_path):
    net = noisy / "stage1" / "model.safetensors"
    result = run(config_of(tmp_path, "b", f"--stage1.checkpoint={net}", "--stage1.epochs=5", "--stage1.batch_size=32"))
    recorded = yaml.safe_load((result.folder / "ot_meta" / "config.yaml").read_text())["stage1"]
    assert (recorded["epochs"], recorded["batch_size"]) == (2, 64)
    with safe_open(result.folder / "ot_meta" / "model.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert json.loads(facts["stage1"])["epochs"] == 2
    assert facts["label_noise"] == "symmetric 0.4"
    assert facts["precision"] == "no"


def test_equal_runs_write_equal_bytes(noisy, tmp_path):
    other = run(config_of(tmp_path, "a")).folder
    for variant in ("stage1", "ot_meta"):
        assert (other / variant / "model.safetensors").read_bytes() == (noisy / variant / "model.safetensors").read_bytes()


def interrupted(folder, stage, epoch, *arguments):
    def report(line):
        if (line["stage"], line["epoch"]) == (stage, epoch):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(config_of(folder, "r", *arguments), report=report)
    return folder / "r"


@pytest.mark.parametrize(("path", "value"), [("run.seed", 5), ("stage1.epochs", 9), ("ot.epsilon", 0.5)])
def test_an_edited_config_does_not_go_on(tmp_path, path, value):
    folder = interrupted(tmp_path, "stage2", 2)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    section, key = path.split(".")
    settings[section][key] = value
    ledger.write_yaml(folder / "config.yaml", settings)
    with pytest.raises(UserError, match=f"{path} must be"):
        run(parse_config([f"--run.resume={folder}"]))


def test_a_damaged_checkpoint_is_passed_over_for_an_older_whole_one(tmp_path):
    state = {"epoch": 1, "module": {"w": torch.zeros(1000)}}
    for epoch in (1, 2, 3):
        checkpoints.save_state(tmp_path, f"round-001-epoch-{epoch:05d}", {**state, "epoch": epoch}, keep=3)
    newest = tmp_path / "round-001-epoch-00003" / "state.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit inside a tensor: torch loads it without a word
    newest.write_bytes(content)
    (tmp_path / "round-001-epoch-00002" / "state.pt").write_bytes(b"")
    said = []
    assert checkpoints.load_latest(tmp_path, said.append)["epoch"] == 1
    assert len(said) == 2
    assert all("damaged" in line for line in said)


def test_a_flipped_bit_in_a_net_is_noticed(noisy, tmp_path):
    path = tmp_path / "model.safetensors"
    content = bytearray((noisy / "stage1" / "model.safetensors").read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        run(config_of(tmp_path, "b", f"--stage1.checkpoint={path}"))


def test_gradient_accumulation_from_the_environment_is_refused(tmp_path):
    code = (
        "from otrw.commands.exit import exit_with_message\nfrom otrw.commands.train import main\n"
        f"exit_with_message(lambda: main({[*TINY, f'--run.directory={tmp_path}']!r}))"
    )

    environment = os.environ | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: gradient_accumulation_steps must be 1, got 4")


def test_going_on_takes_new_folders_and_cadence_and_refuses_the_rest(tmp_path):
    folder = interrupted(tmp_path, "stage1", 2)
    with pytest.raises(UserError, match=r"ot\.epsilon must stay 0\.2 when a run goes on, got 0\.5"):
        parse_config([f"--run.resume={folder}", "--ot.epsilon=0.5"])
    config = parse_config([f"--run.resume={folder}", "--run.keep_checkpoints=2", "--data.cache=elsewhere"])
    assert (config.run.keep_checkpoints, config.data.cache, config.run.resume) == (2, "elsewhere", str(folder))
