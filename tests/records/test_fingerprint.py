"""Which configs count as the same method."""

from otrw.config import to_dict
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.records.fingerprint import decisive_settings, fingerprint


def test_a_method_is_what_decides_the_numbers_and_nothing_else():
    here = parse_config(["--config", "official", "--run.directory", "a", "--data.root", "b", "--stage1.checkpoint", "c"])
    there = parse_config(["--config", "official", "--run.precision", "bf16", "--run.seed", "3"])
    assert here.run.preset == there.run.preset == "official"
    assert decisive_settings(to_dict(here)) == decisive_settings(to_dict(there))
    assert fingerprint(to_dict(here)) == fingerprint(to_dict(there))
    assert fingerprint(to_dict(here), with_seed=True) != fingerprint(to_dict(there), with_seed=True)
    other = parse_config(["--config", "official", "--stage1.epochs", "24"])
    assert decisive_settings(to_dict(other)) == decisive_settings(to_dict(here)) | {"stage1.epochs": 24}


def test_records_from_before_a_setting_existed_have_the_same_method():
    config = to_dict(parse_config([]))
    before = {**config, "ot": {key: value for key, value in config["ot"].items() if key != "solver"}}
    assert fingerprint(before) == fingerprint(config)


def test_the_seed_of_the_split_follows_the_seed_of_the_run():
    one = to_dict(parse_config(["--run.seed", "1"]))
    same = to_dict(parse_config(["--run.seed", "1", "--data.seed", "1"]))
    other = to_dict(parse_config(["--run.seed", "1", "--data.seed", "2"]))
    assert fingerprint(one, with_seed=True) == fingerprint(same, with_seed=True) != fingerprint(other, with_seed=True)
    assert fingerprint(one) == fingerprint(other)


def test_settings_that_a_row_does_not_use_do_not_count():
    default, other = parse_config([]), parse_config(["--ot.epsilon", "0.7"])
    hashes = [
        {variant: fingerprint(to_dict(variant_config(c, variant))) for variant in ("stage1", "class_balanced", "ot")}
        for c in (default, other)
    ]
    assert hashes[0]["stage1"] == hashes[1]["stage1"]
    assert hashes[0]["class_balanced"] == hashes[1]["class_balanced"]
    assert hashes[0]["ot"] != hashes[1]["ot"]
    assert len(set(hashes[0].values())) == 3


def test_the_closed_form_does_not_depend_on_settings_of_iterations():
    default, other = (to_dict(parse_config(["--ot.learning_rate", rate])) for rate in ("0.03", "1.0"))
    assert fingerprint(default) == fingerprint(other)
    for config in (default, other):
        config["ot"] |= {"weights": "sgd"}
    assert fingerprint(default) != fingerprint(other)
