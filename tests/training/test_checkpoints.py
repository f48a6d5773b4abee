"""Checkpoints: only complete ones count, the last k stay, and a model goes only where it fits."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from otrw.errors import UserError
from otrw.models.build import build_model
from otrw.training import checkpoints
from otrw.training.checkpoints import load_latest, load_model, remove_states, save_model, save_state

FACTS = {"source": "digits", "split": "abc", "model": "small"}


def state(epoch):
    return {"epoch": epoch, "module": {"weight": torch.full((3,), float(epoch))}, "stage": "stage2"}


def save_epochs(folder, *epochs, keep=1):
    for epoch in epochs:
        save_state(folder, f"round-001-epoch-{epoch:05d}", state(epoch), keep)


def small_net(num_classes=10, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model("small", num_classes, in_channels=1)


def test_a_state_is_read_back_equal(tmp_path):
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 3, generator=generator)).sum().backward()
    optimizer.step()
    saved = {"module": net.state_dict(), "optimizer": optimizer.state_dict(), "round": 2, "name": "text", "none": None}
    save_state(tmp_path / "checkpoints", "a", saved, keep=1)
    found = load_latest(tmp_path / "checkpoints")
    assert found.keys() == saved.keys()
    for name, value in net.state_dict().items():
        assert torch.equal(found["module"][name], value)
    momentum = found["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert (found["round"], found["name"], found["none"]) == (2, "text", None)


def test_no_folder_is_no_state(tmp_path):
    assert load_latest(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints").mkdir()
    assert load_latest(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_stay_and_the_newest_is_read(tmp_path, keep):
    save_epochs(tmp_path, 1, 2, 9, 10, 100, keep=keep)
    expected = ["00001", "00002", "00009", "00010", "00100"][-keep:]
    assert [experiment.name[-5:] for experiment in sorted(tmp_path.iterdir())] == expected
    assert load_latest(tmp_path)["epoch"] == 100


def test_a_later_round_is_newer_than_any_epoch_of_an_earlier_one(tmp_path):
    save_state(tmp_path, "round-001-epoch-00040", state(40), 2)
    save_state(tmp_path, "round-002-epoch-00001", state(1), 2)
    assert load_latest(tmp_path)["epoch"] == 1


def test_partial_states_are_passed_over(tmp_path):
    save_epochs(tmp_path, 1)
    for name in (".partial-round-001-epoch-00002", "round-001-epoch-00003"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"half a file")
    (tmp_path / ".partial-round-001-epoch-00002" / checkpoints.COMPLETE).touch()
    assert load_latest(tmp_path)["epoch"] == 1


def test_a_crash_at_any_moment_of_saving_leaves_the_state_before(tmp_path, monkeypatch):
    save_epochs(tmp_path, 1)

    def crash(*_, **__):
        raise KeyboardInterrupt

    for module, name in ((checkpoints.torch, "save"), (checkpoints.os, "fsync"), (checkpoints.os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, crash)
            with pytest.raises(KeyboardInterrupt):
                save_epochs(tmp_path, 2)
        assert load_latest(tmp_path)["epoch"] == 1
    save_epochs(tmp_path, 2)
    assert load_latest(tmp_path)["epoch"] == 2
    assert [experiment.name for experiment in tmp_path.iterdir()] == ["round-001-epoch-00002"]


def test_saving_under_the_same_name_replaces(tmp_path):
    save_state(tmp_path, "a", state(1), 1)
    save_state(tmp_path, "a", state(2), 1)
    assert load_latest(tmp_path)["epoch"] == 2


def test_loading_runs_no_code_from_the_file(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    folder = tmp_path / "checkpoints" / "a"
    folder.mkdir(parents=True)
    torch.save({"epoch": Touch()}, folder / "state.pt")
    (folder / checkpoints.COMPLETE).touch()
    with pytest.raises(UserError, match="must be whole"):
        load_latest(tmp_path / "checkpoints")
    assert not (tmp_path / "touched").exists()


def test_states_of_a_finished_row_are_dropped(tmp_path):
    save_epochs(tmp_path / "checkpoints", 1, 2, keep=2)
    remove_states(tmp_path / "checkpoints")
    remove_states(tmp_path / "checkpoints")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_read_back_equal(tmp_path):
    saved, loaded = small_net(seed=0), small_net(seed=1)
    path = tmp_path / "model.safetensors"
    save_model(path, saved, FACTS)
    load_model(path, loaded, FACTS)
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert load_file(path).keys() == saved.state_dict().keys()
    assert [experiment.name for experiment in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_channels_last_model_is_stored_as_any_other(tmp_path):
    net = small_net()
    save_model(tmp_path / "plain", net, FACTS)
    save_model(tmp_path / "last", net.to(memory_format=torch.channels_last), FACTS)
    plain, last = load_file(tmp_path / "plain"), load_file(tmp_path / "last")  # the header's order is not fixed
    assert plain.keys() == last.keys()
    assert all(torch.equal(plain[name], last[name]) for name in plain)


@pytest.mark.parametrize("key", sorted(FACTS))
def test_a_model_of_another_run_is_refused_with_both_facts(tmp_path, key):
    path = tmp_path / "model.safetensors"
    save_model(path, small_net(), FACTS)
    with pytest.raises(UserError, match=rf"its {key} is '{FACTS[key]}' and the run's is 'other'") as error:
        load_model(path, small_net(), FACTS | {key: "other"})
    assert str(error.value).startswith(f"stage1.checkpoint {path}")


def test_a_model_of_another_shape_is_refused_and_the_net_left_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, small_net(num_classes=7), FACTS)
    with pytest.raises(UserError, match="does not fit the model") as error:
        load_model(path, small_net(num_classes=10), FACTS)
    assert "\n" not in str(error.value)


def test_a_file_without_facts_is_taken_where_it_fits(tmp_path):
    path = tmp_path / "model.safetensors"
    net = small_net(seed=0)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    other = small_net(seed=1)
    load_model(path, other, FACTS)
    assert torch.equal(other.head.weight, net.head.weight)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "truncated", "pickle"])
def test_a_file_that_cannot_be_read_is_a_user_error_that_names_it(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        torch.save({"weight": torch.ones(1)}, path)
    elif kind != "missing":
        save_model(path, small_net(), FACTS)
        path.write_bytes(path.read_bytes()[: 0 if kind == "empty" else 5000])
    with pytest.raises(UserError) as error:
        load_model(path, small_net(), FACTS)
    assert str(error.value).startswith(f"stage1.checkpoint {path} cannot be read")
    assert "\n" not in str(error.value)


def test_a_state_of_the_first_version_has_no_checksum_and_is_read(tmp_path):
    checkpoints.save_state(tmp_path, "round-001-epoch-00001", {"epoch": 1}, keep=1)
    (tmp_path / "round-001-epoch-00001" / checkpoints.COMPLETE).write_bytes(b"")
    assert checkpoints.load_latest(tmp_path) == {"epoch": 1}
