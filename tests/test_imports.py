"""The one direction of imports, held on the source, and what an import may not bring in."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "otrw").rglob("*.py"))
}


def names_imported_by(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def package_of(module):
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


@cache
def imported_names(module):
    """Dotted names that a module imports anywhere, inside functions too; of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package_of(module).split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def is_within(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def importers_of(*packages):
    return {module for module in MODULES if any(is_within(name, *packages) for name in imported_names(module))}


def own_imports(module):
    """Modules of the package that a module imports, through others too."""
    seen, waiting = set(), [module]
    while waiting:
        for name in imported_names(waiting.pop()):
            if name in MODULES and name not in seen and name != "otrw":  # its face names others without loading them
                seen.add(name)
                waiting.append(name)
    return seen


def loaded_modules(statement):
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


ROOMS = (
    "errors",
    "seeds",
    "atomic",
    "ot",
    "models",
    "distributed",
    "config",
    "data",
    "reweight",
    "records",
    "training",
    "grid",
    "tuning",
    "analysis",
    "commands",
    "__main__",
)
"""From the ground up: a room imports from itself and from rooms named before it."""


def room_of(module):
    return module.split(".")[1]


def test_all_modules_are_found_and_every_room_is_named():
    assert {"otrw.ot.sinkhorn", "otrw.training.losses", "otrw.config.tree", "otrw.commands.train"} <= set(MODULES)
    assert {room_of(module) for module in MODULES if module != "otrw"} == set(ROOMS)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "otrw"])
def test_no_import_runs_upward(module):
    floor = ROOMS.index(room_of(module))
    imported = {name for name in imported_names(module) if name in MODULES and name != "otrw"}
    assert not {name for name in imported if ROOMS.index(room_of(name)) > floor}


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if is_within(name, "otrw.ot", "otrw.training.losses", "otrw.training.metrics", "otrw.models")],
)
def test_the_mathematics_knows_neither_config_nor_processes_nor_data(module):
    reached = own_imports(module)
    assert not {name for name in reached if is_within(name, "otrw.config", "otrw.distributed", "otrw.data")}


def test_one_room_imports_torch_distributed_and_imports_nothing_of_ours():
    assert importers_of("torch.distributed") == {"otrw.distributed"}
    assert own_imports("otrw.distributed") == set()
    for module, path in MODULES.items():
        if module != "otrw.distributed":
            assert "torch.distributed." not in ast.unparse(strip_docstrings(path)), module


def strip_docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if hasattr(node, "body") and isinstance(node.body, list):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ] or [ast.Pass()]
    return tree


def test_only_training_imports_accelerate():
    assert {room_of(module) for module in importers_of("accelerate")} == {"training"}


def test_only_the_figures_import_matplotlib():
    importers = importers_of("matplotlib") - {"otrw.commands.figures"}  # which sets their style around them
    assert {module.rpartition(".")[0] for module in importers} == {"otrw.analysis.figures"}
    users = {module for module in importers_of("otrw.analysis.figures") if not is_within(module, "otrw.analysis.figures")}
    assert users == {"otrw.commands.figures"}


def test_only_tracking_imports_the_summary_writer():
    assert importers_of("tensorboard", "tensorboardX", "torch.utils.tensorboard") == {"otrw.training.tracking"}


def test_only_the_sinkhorn_file_imports_the_pot_library_and_only_when_asked():
    assert importers_of("ot") == {"otrw.ot.sinkhorn"}
    for statement in ast.parse(MODULES["otrw.ot.sinkhorn"].read_text(encoding="utf-8")).body:
        assert not (isinstance(statement, ast.Import) and any(alias.name == "ot" for alias in statement.names))


def test_only_the_search_imports_ray():
    assert {room_of(module) for module in importers_of("ray")} == {"tuning"}


def test_the_package_imports_no_script():
    assert importers_of("launch", "tuning", "analysis") == set()


@pytest.mark.parametrize(
    "script", sorted(path for room in ("launch", "tuning") for path in (ROOT / room).glob("*.py")), ids=str
)
def test_scripts_are_thin(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 15
    assert all(is_within(name, "otrw", "sys") for name in names_imported_by(script))


def test_the_package_itself_loads_nothing_heavy():
    loaded = loaded_modules("import otrw")
    assert not {name for name in loaded if is_within(name, "torch", "numpy", "yaml", "rich", "jsonargparse")}


def test_records_tables_figures_and_pages_load_without_torch():
    loaded = loaded_modules(
        "import otrw.analysis.figures.make, otrw.commands.report, otrw.commands.table, otrw.analysis.summary"
    )
    assert not {name for name in loaded if is_within(name, "torch", "accelerate", "sklearn", "ray", "scipy")}


def test_a_table_needs_no_matplotlib():
    assert not {name for name in loaded_modules("import otrw.commands.table") if is_within(name, "matplotlib")}


def test_what_a_search_is_asked_for_is_read_without_ray():
    loaded = loaded_modules("import otrw.tuning.plan, otrw.tuning.outcomes")
    assert not {name for name in loaded if is_within(name, "ray", "torch", "optuna")}


def test_imports_are_free_of_circles():
    for module in MODULES:
        assert module not in own_imports(module), module


def test_the_training_path_loads_neither_ray_nor_pot_nor_pictures():
    loaded = loaded_modules("import otrw.training.run")
    assert "torch" in loaded
    assert not {
        name for name in loaded if is_within(name, "ray", "ot", "otrw.analysis", "otrw.tuning", "sklearn", "matplotlib")
    }
