"""The house stands: imports point down, and every foreign library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "edge_reranker"

LAYERS = {
    "types": 0, "errors": 0, "texts": 0, "config": 0, "deadline": 0, "turns": 0, "current": 0,
    "interrupts": 0, "crashes": 0, "explained": 0, "v1": 0,
    "store": 1, "prompt": 1, "engine": 1, "ranking": 1, "models": 1,
    "scoring": 2, "sweeper": 2,
    "pipeline": 3,
    "server": 4, "evaluation": 4, "training": 4, "backend": 4, "quantize": 4,
    "cli": 5,
}  # fmt: skip
# These two measure what they made, so they may look at a neighbour.
NEIGHBOURS = {("training", "evaluation"), ("quantize", "evaluation")}
# Rooms that are packages of their own.
ELSEWHERE = {"edge_reranker_quantize": "quantize"}

OWNERS = {
    "llama_cpp": {"engine"},
    "sqlite3": {"store"},
    "sqlcipher3": {"store"},
    "sqlite_utils": {"store"},
    "keyring": {"store"},
    "cryptography": {"store"},
    "grpc": {"server", "v1", "clients"},
    "grpc_health": {"server", "clients"},
    "grpc_reflection": {"server"},
    "click": {"cli"},
    "platformdirs": {"cli", "clients"},
    "torch": {"training"},
    "gguf": {"models", "quantize"},
    "safetensors": {"models", "quantize"},
    "scipy": {"quantize"},
    "bm25s": {"ranking"},
    "ir_measures": {"evaluation"},
    "pyarrow": {"evaluation", "backend"},
    "ray": {"backend"},
    "google": {"v1", "server", "clients", "cli"},
    "edge_reranker_client": {"cli", "clients"},
}


def rooms() -> Iterator[tuple[str, Path]]:
    for path in sorted(HOUSE.rglob("*.py")):
        inside = path.relative_to(HOUSE).parts
        if inside != ("__init__.py",):
            yield (inside[0] if len(inside) > 1 else path.stem), path
    for path in sorted((ROOT / "clients" / "python").rglob("*.py")):
        yield "clients", path
    for path in sorted((ROOT / "quantize").rglob("*.py")):
        yield "quantize", path


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "edge_reranker":
                yield from (f"edge_reranker.{alias.name}" for alias in node.names)
            else:
                yield node.module


def problems(room: str, path: Path, module: str) -> Iterator[str]:
    top, *rest = module.split(".")
    where = path.relative_to(ROOT)
    if top in OWNERS and room not in OWNERS[top]:
        yield f"{where} imports {module}, which belongs to {sorted(OWNERS[top])}"
    if top in ELSEWHERE:
        rest = [ELSEWHERE[top]]
    elif top != "edge_reranker" or not rest:
        return
    target = rest[0]
    if room == "clients":
        if target != "v1":
            yield f"{where} imports {module}; a client imports the stubs only"
        return
    if target == room or (room, target) in NEIGHBOURS:
        return
    if target not in LAYERS:
        yield f"{where} imports {module}, which has no layer"
    elif LAYERS[target] > LAYERS[room]:
        yield f"{where} imports {module}: upward"
    elif LAYERS[target] == LAYERS[room] and LAYERS[room] > 0:
        yield f"{where} imports {module}: between neighbours"


def test_imports_point_down_and_foreign_libraries_have_one_owner() -> None:
    found = [
        problem
        for room, path in rooms()
        for module in imports(path)
        for problem in problems(room, path, module)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "module"),
    [
        ("store", "edge_reranker.pipeline"),
        ("store", "edge_reranker.engine"),
        ("server", "edge_reranker.evaluation"),
        ("ranking", "llama_cpp"),
        ("pipeline", "grpc"),
        ("clients", "edge_reranker.types"),
        ("scoring", "edge_reranker.unheard_of"),
    ],
)
def test_the_check_bites(room: str, module: str) -> None:
    assert list(problems(room, HOUSE / "pipeline" / "answers.py", module))


def test_core_types_import_the_standard_library_only() -> None:
    standard = sys.stdlib_module_names
    for room, path in rooms():
        if LAYERS.get(room) == 0 and room != "v1":
            for module in imports(path):
                assert module.split(".")[0] in {*standard, "edge_reranker"}, f"{path}: {module}"


def test_every_room_is_in_the_table() -> None:
    assert {room for room, _ in rooms()} - {"clients"} == set(LAYERS)


@pytest.mark.parametrize("module", ["edge_reranker", "edge_reranker.cli", "edge_reranker_client"])
def test_importing_the_package_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "llama_cpp", "torch", "sqlcipher3", "pyarrow", "ray"} & set(loaded.split())


def test_the_store_loads_no_pandas_where_it_is_installed() -> None:
    """It comes with Ray in development; a service would be 60 MB larger for nothing."""
    told = "import sys, edge_reranker.store; print('pandas' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "False\n"


def test_the_commands_load_no_bm25s_before_serve_forbids_it_a_thread() -> None:
    """Where tqdm is installed, importing it starts what wakes an idle service up every ten seconds."""
    told = "import sys, edge_reranker.cli.app; print({'bm25s', 'tqdm'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "set()\n"
