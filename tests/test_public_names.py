"""The names at the top of the package: there, lazily, and the same objects as in their rooms."""

import importlib
import subprocess
import sys

import pytest

import otrw


def test_every_public_name_is_what_its_room_has():
    for name, home in otrw._HOME.items():
        assert getattr(otrw, name) is getattr(importlib.import_module(home), name)
        assert name in dir(otrw)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sinkhorm'"):
        _ = otrw.sinkhorm


def test_public_names_can_be_imported_in_any_order():
    names = "sinkhorn, run, Config, OTReweighter, semi_relaxed_weights"
    code = f"from otrw import {names}; import otrw.ot.sinkhorn; print(callable(otrw.sinkhorn))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "True\n"


def test_the_version_is_the_packages():
    assert importlib.metadata.version("otrw") == otrw.__version__
