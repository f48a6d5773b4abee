"""docker/ and tuning/cluster/: versions follow pyproject.toml, paths and arguments exist, files say what they must."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from otrw.config.command_line import parse_config

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker/compose.yaml").read_text()
COMPOSE = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE_TEXT))  # with the defaults of its variables
RAY_UP_FILE, RAY_JOB_FILE, SLURM_FILE = (ROOT / "tuning/cluster" / name for name in ("ray-up.yaml", "rayjob.yaml", "slurm.sh"))
RAY_UP = yaml.safe_load(RAY_UP_FILE.read_text())
CLAIM, RAY_JOB = yaml.safe_load_all(RAY_JOB_FILE.read_text())
FILES = [*(ROOT / "docker").iterdir(), *(ROOT / "tuning/cluster").iterdir()]


def constraints():
    lines = (ROOT / ".ci/constraints.txt").read_text().split()
    return {name.lower(): version for name, version in (line.split("==") for line in lines)}


def instructions(name):
    """Arguments of one kind of Dockerfile instruction, continued lines joined."""
    lines = re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.split(maxsplit=1)[:1] == [name]]


def ray_pods():
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_ray_is_the_same_everywhere():
    version = constraints()["ray"]
    (allowed,) = (Requirement(line).specifier for line in PROJECT["dependencies"] if Requirement(line).name == "ray")
    assert version in allowed
    assert RAY_JOB["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert re.findall(r'"(\d+\.\d+\.\d+)"', RAY_UP["setup_commands"][0]) == [version]
    for pinned in re.findall(r"ray[=:]+(\d+\.\d+\.\d+)", DOCKERFILE + COMPOSE_TEXT):
        assert pinned == version


def test_image_has_a_python_that_the_project_allows_and_ci_tests():
    (version,) = (line.split("=")[1] for line in instructions("ARG") if line.startswith("PYTHON_VERSION="))
    assert f"{version}.0" in SpecifierSet(PROJECT["requires-python"])
    assert instructions("FROM") == ["python:${PYTHON_VERSION}-slim-bookworm"]


def test_image_installs_what_the_project_names():
    for extra in re.findall(r'\["optional-dependencies"\]\["(\w+)"\]', DOCKERFILE):
        assert extra in PROJECT["optional-dependencies"]
    command = re.search(r"python -c '(.*?)'", re.sub(r"\\\n", "", DOCKERFILE))[1]
    printed = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:-1] == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]
    ray = [Requirement(line) for line in printed.splitlines() if Requirement(line).name == "ray"]
    assert set().union(*(requirement.extras for requirement in ray)) == {"default", "tune"}
    assert set(constraints()) >= {"torch", "torchvision", "ray"}  # else the image would take the newest


def test_image_copies_what_is_there_and_not_ignored():
    ignored = (ROOT / "docker/Dockerfile.dockerignore").read_text().split("\n")
    ignored = [line for line in ignored if line and not line.startswith("#")]
    assert ignored[0] == "*"
    kept = [line[1:] for line in ignored if line.startswith("!")]
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert sorted(copied) == sorted(kept)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, line) for line in ignored[1:] if not line.startswith("!"))


def test_containers_do_not_run_as_root():
    assert instructions("USER") == ["1000:1000"]
    assert not any("user" in service for service in COMPOSE["services"].values())
    for pod in ray_pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['fsGroup']}" == instructions("USER")[0]


def test_default_command_of_the_image_trains_the_example():
    command = json.loads(instructions("CMD")[0])
    assert command[:2] == ["accelerate", "launch"]
    assert (ROOT / command[2]).is_file()
    assert parse_config(command[3:]).run.preset in (None, "digits_lt")
    assert not instructions("ENTRYPOINT")  # `ray up` starts the image with a shell


def test_compose_services():
    services = COMPOSE["services"]
    assert set(services) == {"train", "train-gpu", "ray-head", "ray-worker", "ray-worker-gpu", "search", "tensorboard"}
    started_by_up = {name for name, service in services.items() if "profiles" not in service}
    assert started_by_up == {"ray-head", "ray-worker", "tensorboard"}
    for name, service in services.items():
        assert service["init"]
        assert service["shm_size"] == "2gb"
        assert ("gpu" in service.get("profiles", [])) == name.endswith("-gpu") == ("deploy" in service)
        build = service["build"]
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).resolve() == ROOT / "docker/Dockerfile"
        assert {argument.split("=")[0] for argument in instructions("ARG")} >= set(build["args"])
        for volume in service["volumes"]:
            assert volume.split(":")[0] in COMPOSE["volumes"]
    (device,) = services["train-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in device["capabilities"]
    assert services["ray-head"]["healthcheck"]
    for name in ("ray-worker", "ray-worker-gpu", "search"):
        assert services[name]["depends_on"]["ray-head"]["condition"] == "service_healthy"


def test_compose_ports_are_of_this_machine_alone_and_differ():
    ports = [port.split(":") for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert {port[0] for port in ports} == {"127.0.0.1"}
    assert len({port[1] for port in ports}) == len(ports)
    assert "ports" not in COMPOSE["services"]["ray-worker"]  # or two of them would clash


def test_compose_mounts_folders_that_the_user_owns():
    made = next(line for line in instructions("RUN") if "chown" in line)
    targets = {volume.split(":")[1] for service in COMPOSE["services"].values() for volume in service["volumes"]}
    for target in targets:
        assert re.search(rf"[\s]{re.escape(target.removeprefix('/app/'))}\b", made), target


def test_ray_nodes_agree_on_authentication():
    """Ray's default differs between the versions that pyproject.toml allows, and nodes that disagree never meet."""
    assert "RAY_AUTH_MODE=token" in DOCKERFILE
    for name in ("ray-head", "ray-worker", "ray-worker-gpu", "search"):
        service = COMPOSE["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert "ray-token:/home/otrw/.ray" in service["volumes"]
    assert RAY_JOB["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
    assert "--env RAY_AUTH_MODE=token" in RAY_UP["docker"]["run_options"]
    starts = [RAY_UP["head_start_ray_commands"], RAY_UP["worker_start_ray_commands"]]
    assert all(command.startswith("RAY_AUTH_MODE=token ray start") for _, command in starts)
    assert "export RAY_AUTH_MODE=token" in SLURM_FILE.read_text()


def test_ray_up_file_is_valid_for_this_ray():
    schema = pytest.importorskip("ray.autoscaler._private.util", reason="needs ray")
    config = schema.prepare_config(RAY_UP)
    schema.validate_config(config)
    (node_type,) = config["available_node_types"].values()
    assert node_type["max_workers"] == len(RAY_UP["provider"]["worker_ips"])


def test_ray_job():
    assert RAY_JOB["apiVersion"] == "ray.io/v1"
    assert RAY_JOB["kind"] == "RayJob"
    assert RAY_JOB["spec"]["shutdownAfterJobFinishes"]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in ray_pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert volumes["otrw"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert container["image"].startswith("otrw:")
        assert container["resources"]["requests"] == container["resources"]["limits"]
    (worker,) = ray_pods()[1]["containers"]
    assert int(worker["resources"]["limits"]["nvidia.com/gpu"]) >= 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_paths_and_presets_that_the_files_name_exist(file):
    text = file.read_text()
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 128
    for path in re.findall(r"\b((?:tuning|launch|docker)/[\w./-]+\.(?:py|sh|yaml))\b", text):
        assert (ROOT / path).is_file(), path
    for preset in re.findall(r"--config (\w+)\b(?!\.)", text):
        assert (ROOT / f"otrw/config/presets/{preset}.yaml").is_file(), preset
    for line in re.findall(r"accelerate launch launch/train\.py(.*)", text):
        parse_config(shlex.split(line, comments=True))


def test_slurm_script_is_clean():
    subprocess.run(["bash", "-n", SLURM_FILE], check=True)
    assert os.access(SLURM_FILE, os.X_OK)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", SLURM_FILE], check=True)


def run_slurm_script(folder, num_nodes, search):
    """Run the script with stand-ins for srun, ray and the search; what they were called with, in order."""
    python = f"""case "$*" in
        *get_node_ip_address*) echo 192.0.2.7 ;;
        -c*) exec {sys.executable} "$@" ;;
        *) echo "python $* auth=$RAY_AUTH_MODE" >> "$CALLS"; {search} ;;
    esac"""
    programs = {
        "srun": """echo "srun $*" >> "$CALLS"; trap 'kill $!; echo stopped >> "$CALLS"; exit 0' TERM; sleep 60 & wait""",
        "ray": "exit 0",
        "python": python,
        "hostname": "echo first",
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NUM_NODES": str(num_nodes),
        "SLURM_CPUS_PER_TASK": "3",
        "OTRW_STORAGE": "/shared/searches",
    }
    command = ["bash", str(SLURM_FILE), "--config", "cifar10_lt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done, calls.read_text().splitlines()


def test_slurm_script_starts_one_ray_node_per_machine_and_stops_them(tmp_path):
    done, calls = run_slurm_script(tmp_path, num_nodes=3, search="sleep 1")
    assert done.returncode == 0, done.stderr
    (head,) = (call for call in calls if "--head" in call)
    (workers,) = (call for call in calls if call.startswith("srun") and "--head" not in call)
    address = "192.0.2.7:29134"
    assert "--nodelist=first" in head
    assert "--node-ip-address=192.0.2.7 --port=29134" in head
    assert "--nodes=2 --ntasks=2" in workers
    assert "--exclude=first" in workers
    assert f"--address={address}" in workers
    assert all("--num-cpus=3" in call for call in (head, workers))
    search = f"python tuning/search.py --address {address} --storage /shared/searches --config cifar10_lt auth=token"
    assert search in calls
    assert calls.count("stopped") == 2  # head and workers
    assert calls.index(search) < calls.index("stopped")


def test_slurm_script_passes_on_that_the_search_failed(tmp_path):
    done, calls = run_slurm_script(tmp_path, num_nodes=1, search="sleep 1; exit 3")
    assert done.returncode == 3
    assert len([call for call in calls if call.startswith("srun")]) == 1
    assert calls.count("stopped") == 1
