"""The one direction of imports, held on the source, and what an import may not bring in."""

import ast
import json
import os
import subprocess
import sys
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
            if name in MODULES and name not in seen:
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


def test_all_modules_are_found():
    assert {"otrw.ot", "otrw.losses", "otrw.metrics", "otrw.models", "otrw.config", "otrw.train"} <= set(MODULES)


@pytest.mark.parametrize(
    "module", [name for name in MODULES if is_within(name, "otrw.ot", "otrw.losses", "otrw.metrics", "otrw.models")]
)
def test_the_mathematics_knows_neither_config_nor_collectives_nor_data(module):
    reached = own_imports(module)
    assert not {name for name in reached if is_within(name, "otrw.config", "otrw.collectives", "otrw.data")}


def test_collectives_is_the_only_importer_of_torch_distributed_and_imports_nothing_of_ours():
    assert importers_of("torch.distributed") == {"otrw.collectives"}
    assert own_imports("otrw.collectives") == set()
    for module, path in MODULES.items():
        if module != "otrw.collectives":
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


def test_only_the_loop_the_stages_and_the_run_import_accelerate():
    assert importers_of("accelerate") <= {"otrw.loop", "otrw.stages", "otrw.train"}


def test_only_the_figures_import_matplotlib():
    assert {module.rpartition(".")[0] for module in importers_of("matplotlib")} == {"otrw.figures"}
    assert importers_of("otrw.figures") <= {module for module in MODULES if is_within(module, "otrw.figures")}


def test_figures_and_report_load_without_torch():
    loaded = loaded_modules("import otrw.figures.make, otrw.report.page, otrw.formats")
    assert not {name for name in loaded if is_within(name, "torch", "accelerate", "sklearn", "ray", "scipy")}


def test_only_tracking_imports_the_summary_writer():
    assert importers_of("tensorboard", "tensorboardX", "torch.utils.tensorboard") == {"otrw.tracking"}


def test_only_the_sinkhorn_file_imports_the_pot_library_and_only_when_asked():
    assert importers_of("ot") == {"otrw.ot.sinkhorn"}
    for statement in ast.parse(MODULES["otrw.ot.sinkhorn"].read_text(encoding="utf-8")).body:
        assert not (isinstance(statement, ast.Import) and any(alias.name == "ot" for alias in statement.names))


def test_the_package_imports_no_script_and_no_ray():
    assert importers_of("ray", "launch", "tuning", "analysis") == set()


def test_only_the_search_imports_ray():
    scripts = [path for folder in ("launch", "analysis") for path in (ROOT / folder).rglob("*.py")]
    for path in scripts:
        names = {name.partition(".")[0] for name in names_imported_by(path)}
        assert "ray" not in names, path


def test_what_a_search_is_asked_for_is_read_without_ray():
    loaded = loaded_modules("import tuning.plan, tuning.outcomes")
    assert not {name for name in loaded if is_within(name, "ray", "torch", "optuna")}


def test_nothing_imports_the_run_but_scripts():
    assert importers_of("otrw.train") == set()


def test_imports_are_free_of_circles():
    for module in MODULES:
        assert module not in own_imports(module), module


def test_records_and_tables_load_without_torch():
    loaded = loaded_modules("import otrw.ledger, otrw.summary, otrw.rows, otrw.config")
    assert not {name for name in loaded if is_within(name, "torch", "accelerate", "sklearn", "ray")}


def test_the_training_path_loads_neither_ray_nor_pot():
    loaded = loaded_modules("import otrw.train")
    assert "torch" in loaded
    assert not {name for name in loaded if is_within(name, "ray", "ot", "analysis", "tuning", "sklearn")}
