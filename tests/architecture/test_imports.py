"""The river: who may import whom, and what an import costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests.architecture.tree import PACKAGES, ROOT, name_of, parsed, python_files

HEAVY = ("torch", "ray", "zmq", "grpc", "transformers")


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", result.stdout), result.stdout


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and those for types alone count too."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    below = {module: graph.find_upstream_modules(module) for module in graph.modules}
    assert "balancer.plan.plan" in below["hetero.cli.train"]
    circles = {frozenset({a, *(b for b in below[a] if a in below[b])}) for a in below}
    assert not [sorted(circle) for circle in circles if len(circle) > 1]


def _loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    loaded = _loaded_by(f"import {package}")
    assert package in loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.slow
def test_what_python_is_offered_is_there_and_no_module_takes_its_name() -> None:
    script = "import hetero; assert not {'hetero.training', 'pydantic'} & set(sys.modules)"
    script += (
        "; import hetero.run, hetero.training, hetero.cli.train; assert callable(hetero.train); hetero.Job.model_fields"
    )
    assert "hetero" in _loaded_by(script)


def test_init_files_are_docstrings() -> None:
    """But the one whose names people import."""
    for path in python_files(*PACKAGES):
        if path.name == "__init__.py" and path != ROOT / "hetero" / "__init__.py":
            assert len(parsed(path).body) <= 1, f"{name_of(path)} holds more than a docstring"


@pytest.mark.slow
def test_the_driver_side_loads_neither_torch_nor_ray() -> None:
    assert not _loaded_by("import hetero.job.file.load, hetero.job.planning.plan_job").intersection({"torch", "ray"})


@pytest.mark.slow
def test_a_backend_loads_no_other_package() -> None:
    loaded = _loaded_by("import backends.cuda")
    assert not loaded.intersection({"ray", "zmq", "grpc", "bridge", "balancer", "hetero"})


@pytest.mark.slow
def test_help_is_fast_and_light() -> None:
    commands = [], ["plan"], ["train"], ["dashboard"], ["submit"], ["jobs"], ["jobs", "fetch"], ["doctor"]
    script = f"""
import sys, time
from hetero.cli.app import run
for command in {commands}:
    assert run([*command, "--help"]) == 0
    assert not {{"torch", "ray"}} & set(sys.modules), f"help of {{command}} imports what it does not need"
assert time.process_time() < 3.0, "importing torch or Ray alone takes this long"
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage") == len(commands)
