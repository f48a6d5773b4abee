"""Searches as they are called: real trials by Ray Tune, interruptions, failures, several processes a trial, bad input."""

import contextlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from otrw.config.command_line import parse_config
from otrw.errors import UserError
from otrw.records import ledger
from otrw.tuning.outcomes import Ranked, ranking
from otrw.tuning.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "tuning" / "search.py")
TINY = [
    "--data.imbalance_factor=10",
    "--data.num_meta_per_class=4",
    "--model.width_multiplier=0.25",
    "--stage1.epochs=2",
    "--stage2.epochs=2",
    "--stage2.rounds=2",
    "--run.cpu=true",
]
EPOCHS = 4
VARIABLES = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def own_ray(tmp_path_factory):
    """One small Ray for all searches of this file."""
    os.environ.update(
        {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_AIR_NEW_OUTPUT": "0",
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        }
    )
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 1024**2,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": VARIABLES},
    )
    yield ray
    ray.shutdown()


def write_space(folder, content):
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    return f"--space={path}"


def plan_of(folder, *arguments):
    return make_plan([f"--storage={folder}", "--name=search", *TINY, *arguments])


def search_here(plan):
    """Run a plan in this process: (whether a best was found, lines of trials.jsonl)."""
    from otrw.tuning.ray_search import run_search

    with open(os.devnull, "w") as nowhere:
        found = run_search(plan.folder, plan.search, Console(width=80, file=nowhere), None)
    return found, ledger.read_lines(plan.folder / "trials.jsonl")


def event_tags(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    plugins = events.PluginTagToContent("hparams")
    return events, plugins


@pytest.fixture(scope="module")
def searched(own_ray, tmp_path_factory):
    """A finished grid of four trials: two settings, two seeds."""
    folder = tmp_path_factory.mktemp("searched")
    space = write_space(folder, {"ot.epsilon": {"grid": [0.1, 0.4]}})
    plan = plan_of(folder, space, "--algorithm=grid", "--seeds=2", "--run.directory=elsewhere")
    found, lines = search_here(plan)
    assert found
    return plan, lines


def test_a_search_leaves_one_line_and_one_run_a_trial(searched):
    plan, lines = searched
    assert sorted(line["trial"] for line in lines) == ["0000-seed0", "0000-seed1", "0001-seed0", "0001-seed1"]
    for line in lines:
        assert line["state"] == "finished"
        assert line["metric"] == "validation/balanced_error"
        assert line["epochs"] == EPOCHS
        assert set(line["settings"]) == {"ot.epsilon"}
        record = ledger.read_record(plan.folder / line["folder"])
        assert record.result["validation"]["balanced_error"] == line["value"]
        assert record.config["ot"]["epsilon"] == line["settings"]["ot.epsilon"]
        assert record.config["run"]["seed"] == line["seed"] == record.result["seed"]
        assert len(ledger.read_lines(plan.folder / line["folder"] / "metrics.jsonl")) == EPOCHS
        assert [path.name for path in (plan.folder / line["folder"]).parent.iterdir() if path.is_dir()] == ["ot_meta"]


def test_stage_1_is_trained_once_a_seed(searched):
    plan, _ = searched
    results = sorted(plan.folder.glob("stage1/*/stage1/result.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in results) == [0, 1]


def test_the_best_config_is_the_given_one_with_the_found_setting(searched):
    plan, lines = searched
    means = {
        epsilon: sum(line["value"] for line in lines if line["settings"]["ot.epsilon"] == epsilon) / 2 for epsilon in (0.1, 0.4)
    }
    best = parse_config(["--config", str(plan.folder / "best.yaml")])
    assert best.ot.epsilon == min(means, key=means.get)
    given = parse_config([*TINY, "--run.directory=elsewhere", f"--ot.epsilon={best.ot.epsilon}"])
    assert best == given
    assert best.data.num_validation_per_class == 0


def test_hparams_hold_the_searched_settings_and_validation_figures(searched):
    plan, lines = searched
    for line in lines:
        events, plugins = event_tags(plan.folder / line["folder"])
        assert set(plugins) == {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
        assert b"ot.epsilon" in plugins["_hparams_/session_start_info"]
        assert b"validation/balanced_error" in plugins["_hparams_/experiment"]
        assert b"test" not in plugins["_hparams_/experiment"]
        scalars = events.Scalars("validation/balanced_error")
        assert [point.step for point in scalars] == list(range(1, EPOCHS + 1))
        assert scalars[-1].value == pytest.approx(line["value"])


@pytest.mark.slow
def test_resumed_nothing_finished_runs_again(searched, tmp_path):
    plan, lines = searched
    folder = tmp_path / "search"
    shutil.copytree(plan.folder, folder)
    # as a kill leaves it: one trial over but not written down, one in the middle, and a line cut off
    kept = [line for line in lines if line["trial"] not in ("0000-seed1", "0001-seed1")]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    (folder / "trials.jsonl").write_text(text + '{"trial": "0000-se')
    (folder / "trials" / "0001-seed1" / "ot_meta" / "result.json").unlink()
    results = [folder / line["folder"] / "result.json" for line in lines if line["trial"] != "0001-seed1"]
    before = [path.stat().st_mtime_ns for path in results]
    found, again = search_here(make_plan([f"--resume={folder}", "--concurrent=1"]))
    assert found
    assert [path.stat().st_mtime_ns for path in results] == before
    assert len(again) == 4
    values = {line["trial"]: (line["state"], line["value"], line["epochs"]) for line in lines}
    assert {line["trial"]: (line["state"], line["value"], line["epochs"]) for line in again} == values


def test_a_search_that_is_over_only_prints(searched, tmp_path, monkeypatch):
    plan, lines = searched
    monkeypatch.setattr("otrw.tuning.ray_search.connect", None)
    assert search_here(make_plan([f"--resume={plan.folder}"])) == (True, lines)


def test_poor_trials_are_stopped_and_diverged_ones_reported_without_a_second_try(own_ray, tmp_path):
    rates = [0.05, 1e-9, 1e30]
    space = write_space(tmp_path, {"stage2.optimizer.learning_rate": {"grid": rates}})
    plan = plan_of(
        tmp_path, space, "--algorithm=grid", "--scheduler=asha", "--grace-epochs=1", "--concurrent=1", "--stage2.epochs=4"
    )
    found, lines = search_here(plan)
    assert found
    assert [line["state"] for line in lines] == ["finished", "stopped", "failed"]
    assert lines[1]["epochs"] < 8
    assert lines[1]["value"] > lines[0]["value"]
    assert lines[2]["value"] is None
    assert "not finite" in lines[2]["error"]
    _, plugins = event_tags(plan.folder / lines[1]["folder"])
    assert b"learning_rate" in plugins["_hparams_/session_start_info"]  # stopped trials are in the table too
    assert [variant.setting for variant in ranking({line["trial"]: line for line in lines}, 1)] == [0]


def flaky_trial(config, job):
    """Dies once in its first trial, always fails in its second, works in its third."""
    from ray import tune

    seen = Path(job.folder) / f"seen-{config['trial']}"
    with seen.open("a") as file:
        file.write(".")
    if config["trial"] == "0000" and len(seen.read_text()) == 1:
        os._exit(1)
    if config["trial"] == "0001":
        raise RuntimeError("no luck")
    tune.report({"validation/balanced_error": 1.0, "epoch": EPOCHS, "finished": True, "seconds": 0.0, "started": 0.0})


@pytest.mark.slow
def test_failed_trials_are_tried_again_then_reported_and_do_not_end_the_search(own_ray, tmp_path, monkeypatch):
    own_ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("otrw.tuning.ray_search.run_trial", flaky_trial)
    monkeypatch.setattr("otrw.tuning.ray_search._train_stage1", lambda *_: None)
    space = write_space(tmp_path, {"ot.epsilon": {"grid": [0.1, 0.2, 0.3]}})
    plan = plan_of(tmp_path, space, "--algorithm=grid", "--retries=1", "--concurrent=1")
    found, lines = search_here(plan)
    assert found
    lines = {line["trial"]: line for line in lines}
    assert {name: line["state"] for name, line in lines.items()} == {"0000": "finished", "0001": "failed", "0002": "finished"}
    assert "no luck" in lines["0001"]["error"]
    assert "no luck" in (plan.folder / "trials" / "0001" / "error.txt").read_text()
    assert [len((plan.folder / f"seen-{i:04d}").read_text()) for i in range(3)] == [2, 2, 1]


@pytest.mark.slow
def test_a_space_that_changes_stage_1_trains_each_one_once(own_ray, tmp_path):
    space = write_space(tmp_path, {"stage1.epochs": {"grid": [1, 2]}, "ot.epsilon": {"grid": [0.1, 0.4]}})
    plan = plan_of(tmp_path, space, "--algorithm=grid", "--stage2.epochs=1", "--stage2.rounds=1")
    found, lines = search_here(plan)
    assert found
    assert len(lines) == 4
    assert len(list(plan.folder.glob("stage1/*/stage1/result.json"))) == 2


@pytest.mark.slow
def test_a_given_stage_1_is_used_for_all_seeds(own_ray, searched, tmp_path):
    plan, _ = searched
    (checkpoint,) = [
        path.parent / "model.safetensors"
        for path in plan.folder.glob("stage1/*/stage1/result.json")
        if json.loads(path.read_text())["seed"] == 0
    ]
    space = write_space(tmp_path, {"ot.epsilon": {"grid": [0.1]}})
    arguments = (space, "--algorithm=grid", "--seeds=2", f"--stage1.checkpoint={checkpoint}", "--stage2.epochs=1")
    plan = plan_of(tmp_path, *arguments)
    found, lines = search_here(plan)
    assert found
    assert [line["state"] for line in lines] == ["finished"] * 2
    assert all(ledger.read_lines(path) == [] for path in plan.folder.glob("stage1/*/stage1/metrics.jsonl"))


@pytest.mark.slow
def test_trials_of_two_processes_stop_early_and_give_everything_back(own_ray, tmp_path):
    space = write_space(tmp_path, {"stage2.optimizer.learning_rate": {"grid": [0.05, 1e-9]}})
    options = ("--algorithm=grid", "--scheduler=asha", "--grace-epochs=1", "--processes-per-trial=2", "--stage2.rounds=1")
    plan = plan_of(tmp_path, space, *options)
    found, lines = search_here(plan)
    assert found
    assert [line["state"] for line in lines] == ["finished", "stopped"]
    record = ledger.read_record(plan.folder / lines[0]["folder"])
    assert record.environment["world_size"] == 2
    deadline = time.monotonic() + 20
    while own_ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert own_ray.available_resources()["CPU"] == 2


def test_ranking_is_by_the_mean_over_seeds_of_settings_with_all_of_them():
    def line(setting, seed, state, value):
        return {"trial": f"{setting:04d}-seed{seed}", "state": state, "settings": {"ot.mixing": setting}, "value": value}

    lines = [line(0, 0, "finished", 1.0), line(0, 1, "finished", 9.0), line(1, 0, "finished", 4.0), line(1, 1, "finished", 5.0)]
    lines += [line(2, 0, "finished", 0.0), line(2, 1, "stopped", 0.0), line(3, 0, "failed", None)]
    ranked = ranking({line["trial"]: line for line in lines}, 2)
    assert ranked == [Ranked(1, {"ot.mixing": 1}, 4.5, [4.0, 5.0]), Ranked(0, {"ot.mixing": 0}, 5.0, [1.0, 9.0])]


@pytest.mark.parametrize(
    ("arguments", "held_out"),
    [([], 20), (["--config", "cifar10_lt"], 100), (["--data.num_validation_per_class", "7"], 7)],
)
def test_a_search_holds_out_images_unless_told_how_many(arguments, held_out, tmp_path):
    plan = make_plan([f"--storage={tmp_path}", "--name=search", *arguments])
    assert plan.search["config"]["data"]["num_validation_per_class"] == held_out
    assert Path(plan.search["config"]["data"]["root"]) == Path.cwd() / "data"  # trials run elsewhere
    assert plan.search["given"]["data.root"] == "data"
    assert plan.search["config"]["run"]["preset"] == ("cifar10_lt" if "cifar10_lt" in arguments else "digits_lt")


def test_files_of_verdicts_are_found_from_a_trials_folder(tmp_path):
    files = ["--data.source=folder", "--data.root=photos", "--data.trusted=checked.csv", "--data.corrections=a.csv, ~/b.csv"]
    data = make_plan([f"--storage={tmp_path}", "--name=search", *files]).search["config"]["data"]
    assert data["trusted"] == str(Path.cwd() / "checked.csv")
    assert data["corrections"] == f"{Path.cwd() / 'a.csv'},~/b.csv"


def bad_input():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{listener.getsockname()[1]}"
    return [
        (["--space", "nowhere"], ["--space must name a file", "'nowhere'"]),
        (["--data.num_validation_per_class", "0"], ["data.num_validation_per_class must be >= 1 for a search, got 0"]),
        (["--ot.epsilom", "1"], ["--ot.epsilom"]),
        (["--ot.epsilon", "-1"], ["ot.epsilon must be > 0"]),
        (["--config", "cifar11"], ["'cifar11'"]),
        (["--trials", "0"], ["--trials must be >= 1, got 0"]),
        (["--trials", "many"], ["--trials", "'many'"]),
        (["--algorithm", "magic"], ["--algorithm", "'magic'"]),
        (["--algorithm", "grid"], ["space ot.mixing must be grid or choice with --algorithm grid, got 'uniform'"]),
        (["--metric", "test/error"], ["--metric must be one of validation/balanced_error", "never the test set's"]),
        (["--variant", "stage1"], ["--variant must be one of", "'stage1'"]),
        (["--grace-epochs", "1000"], ["--grace-epochs must be at most the 80 epochs of stage 2, got 1000"]),
        (["--processes-per-trial", "2", "--gpus-per-trial", "1"], ["--gpus-per-trial must be 0 or 2"]),
        (["--cpus-per-trial", "1000"], ["--cpus-per-trial must be at most what Ray has, got 1000"]),
        (["--address", closed], [f"--address must be a running Ray cluster, got {closed}", "refused"]),
        (["--address", "nonsense"], ["--address must be auto or host:port", "'nonsense'"]),
        (["--storage", "s3://bucket"], ["--storage must be a folder, got 's3://bucket'"]),
        (["--resume", "nowhere"], ["--resume must be a search's folder, got 'nowhere'"]),
        (["--run.resume", "nowhere"], ["--run.resume must go with launch/train.py"]),
        (["--stage1.checkpoint", "nowhere"], ["stage1.checkpoint must be a file"]),
        (["--name", "a/b"], ["--name must be a plain folder name"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "parts"), bad_input(), ids=[f"{number}-{arguments[0]}" for number, (arguments, _) in enumerate(bad_input())]
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, parts, own_ray, tmp_path, monkeypatch, capfd):
    if "--address" in arguments:
        monkeypatch.setattr("ray.is_initialized", lambda: False)
    storage = [] if "--storage" in arguments else ["--storage", str(tmp_path / "searches")]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *storage, *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(SCRIPT, run_name="__main__")
    lines = capfd.readouterr().err.splitlines()
    assert leaving.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def test_a_name_that_is_taken(tmp_path):
    plan_of(tmp_path)
    with pytest.raises(UserError, match=r"--name must be new, got .*; go on with it by --resume"):
        plan_of(tmp_path)


def test_what_a_resumed_search_may_change(tmp_path):
    plan = plan_of(tmp_path, "--trials=3")
    assert make_plan([f"--resume={plan.folder}", "--trials=5"]).search["trials"] == 5
    with pytest.raises(UserError, match="--trials must be 5 or more, got 4"):
        make_plan([f"--resume={plan.folder}", "--trials=4"])
    with pytest.raises(UserError, match=r"--resume must come with none but .*, got '--ot.epsilon'"):
        make_plan([f"--resume={plan.folder}", "--ot.epsilon=1"])


def test_two_that_go_on_with_one_search_are_not_let_in_together(tmp_path):
    plan = plan_of(tmp_path)
    before = sorted(plan.folder.iterdir())
    with ledger.locked(plan.folder):
        with pytest.raises(UserError, match=r"--resume must not be running, got .*; another process searches there"):
            make_plan([f"--resume={plan.folder}"])
        with pytest.raises(UserError, match="another process searches there"):
            search_here(plan)
    assert sorted(plan.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("search.yaml", "[1"),
        ("search.yaml", "[" * 100_000),
        ("search.yaml", "- 1"),
        ("search.yaml", "{}"),
        ("search.yaml", ("seeds:", "sheds:")),
        ("search.yaml", ("algorithm: random", "algorithm: magic")),
        ("search.yaml", ("num_validation_per_class: 20", "num_validation_per_class: []")),
        ("trials.jsonl", "[]\n"),
        ("trials.jsonl", "{}\n"),
        ("trials.jsonl", "broken\n{}\n"),
        ("trials.jsonl", '{"trial": "x", "state": "finished", "settings": {}, "epochs": 1, "folder": "f", "seed": 0}\n'),
        ("proposed.jsonl", '{"trial": "0000"}\n'),
        ("proposed.jsonl", b"\xff\n"),
    ],
)
def test_a_damaged_search_is_one_line_and_stays_as_it_is(tmp_path, name, text, monkeypatch, capfd):
    plan = plan_of(tmp_path)
    path = plan.folder / name
    if isinstance(text, tuple):
        assert text[0] in path.read_text()
        path.write_text(path.read_text().replace(*text))
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", [SCRIPT, f"--resume={plan.folder}"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(SCRIPT, run_name="__main__")
    (line,) = capfd.readouterr().err.splitlines()
    assert leaving.value.code == 2
    assert line.startswith("error: ")
    assert name in line or "space" in line
    assert path.read_bytes() == before


def test_a_grid_of_millions_is_refused_at_once(tmp_path):
    paths = ("stage2.batch_size", "stage2.epochs", "stage1.batch_size")
    space = write_space(tmp_path, {path: {"grid": list(range(1, 25))} for path in paths})
    with pytest.raises(UserError, match=r"--algorithm must have at most 10,000, got 'a grid of 13,824 settings'"):
        plan_of(tmp_path, space, "--algorithm=grid")
    assert plan_of(tmp_path, space, "--algorithm=grid", "--trials=3").search["trials"] == 3


def test_coarse_labels_hold_out_images_of_twenty_classes(tmp_path):
    plan = make_plan([f"--storage={tmp_path}", "--config=cifar100_lt", "--data.labels=coarse"])
    assert plan.search["num_validation"] == 400


@pytest.mark.slow
def test_trials_of_more_rounds_are_judged_at_shares_of_their_own_epochs(own_ray, tmp_path):
    space = write_space(tmp_path, {"stage2.rounds": {"grid": [1, 3]}, "stage2.optimizer.learning_rate": {"grid": [1e-9, 0.05]}})
    options = ("--algorithm=grid", "--scheduler=asha", "--stage2.epochs=4", "--stage2.rounds=1", "--concurrent=1")
    plan = plan_of(tmp_path, space, *options)
    found, lines = search_here(plan)
    assert found
    for line in lines:
        own = 4 * line["settings"]["stage2.rounds"]
        assert line["state"] == "finished" or line["epochs"] >= own / 2  # the grace of 2 epochs of 4: half of one's own
    assert any(
        line["state"] == "finished" and line["settings"]["stage2.rounds"] == 3 and line["epochs"] == 12 for line in lines
    )


def start(log, *arguments, **variables):
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            cwd=ROOT,
            env=os.environ | VARIABLES | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_trials(folder, number, seconds=400):
    deadline = time.monotonic() + seconds
    while len(ledger.read_lines(folder / "trials.jsonl")) < number:
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_search_goes_on_and_no_finished_trial_runs_again(tmp_path):
    folder = tmp_path / "search"
    options = [f"--storage={tmp_path}", "--name=search", *TINY, "--stage2.epochs=20", "--trials=6", "--scheduler=none"]
    process = start(tmp_path / "log", *options)
    wait_for_trials(folder, 2)
    os.kill(process.pid, signal.SIGKILL)  # the driver alone: its Ray ends by itself
    process.wait()
    time.sleep(5)
    before = ledger.read_lines(folder / "trials.jsonl")
    times = {line["trial"]: (folder / line["folder"] / "result.json").stat().st_mtime_ns for line in before}
    running = [path.parent for path in folder.glob("trials/*/*/metrics.jsonl") if not (path.parent / "result.json").exists()]
    done = {path: len(ledger.read_lines(path / "metrics.jsonl")) for path in running}
    assert 2 <= len(before) < 6
    assert any(done.values())
    resumed = start(tmp_path / "log", f"--resume={folder}")
    resumed.wait(timeout=600)
    output = (tmp_path / "log").read_text()
    assert resumed.returncode == 0, output
    lines = ledger.read_lines(folder / "trials.jsonl")
    assert lines[: len(before)] == before
    assert sorted(line["trial"] for line in lines) == [f"{i:04d}" for i in range(6)]
    assert all((folder / line["folder"] / "result.json").stat().st_mtime_ns == times[line["trial"]] for line in before)
    assert all(len(ledger.read_lines(folder / line["folder"] / "metrics.jsonl")) == 40 for line in lines)
    assert any("epoch 40" in line for line in output.splitlines())


def ray_address():
    from ray.util import get_node_ip_address

    return get_node_ip_address()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_over_two_nodes_survives_the_loss_of_one(tmp_path):
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=100000000"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--block"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = os.environ | VARIABLES | {"RAY_AUTH_MODE": "disabled"}
    options = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    short = tempfile.mkdtemp(prefix="ray")  # sockets have short names
    address = f"{ray_address()}:{port}"
    head = subprocess.Popen([*ray, "--head", f"--port={port}", f"--temp-dir={short}", *quiet], **options)
    worker = search = None
    try:
        time.sleep(10)
        worker = subprocess.Popen([*ray, f"--address={address}", *quiet[1:]], **options)
        time.sleep(8)
        arguments = [f"--storage={tmp_path}", "--name=search", *TINY, "--stage2.epochs=20", "--trials=6", "--scheduler=none"]
        search = start(tmp_path / "log", *arguments, f"--address={address}", RAY_AUTH_MODE="disabled")
        wait_for_trials(tmp_path / "search", 2)
        os.killpg(worker.pid, signal.SIGKILL)
        search.wait(timeout=600)
        output = (tmp_path / "log").read_text()
        assert search.returncode == 0, output
        lines = ledger.read_lines(tmp_path / "search" / "trials.jsonl")
        assert sorted(line["trial"] for line in lines) == [f"{i:04d}" for i in range(6)]
        assert [line["state"] for line in lines] == ["finished"] * 6
    finally:
        for process in (search, worker, head):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(short, ignore_errors=True)
