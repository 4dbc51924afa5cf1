"""The layers of the package: each module knows only those below it."""

import ast
from pathlib import Path

import msm_fast

PACKAGE = Path(msm_fast.__file__).parent

PLAIN_VALUES = {
    "blacklist",
    "forks",
    "local_store",
    "logs",
    "node",
    "policies",
    "session",
    "settings",
    "settings_sources",
    "statistics",
}

MANAGER = {"async_manager", "manager", "operations", "request_scope"}

LAYERS = [{"errors"}, {"_core"}, PLAIN_VALUES, {"engine"}, {"drivers"}, MANAGER, {"integrations"}, {"cli"}]

IO_AND_TIME = {
    "asyncio",
    "http",
    "io",
    "multiprocessing",
    "os",
    "pymemcache",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "time",
    "urllib",
}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == "msm_fast":
                names.update(f"msm_fast.{alias.name}" for alias in node.names)
    return names


def _layer(room: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def _modules() -> list[tuple[str, Path]]:
    """Return each module with its room: the first name under the package."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):
            found.append((room, path))
    return found


def test_every_module_has_a_layer() -> None:
    assert {room for room, _ in _modules()} <= set().union(*LAYERS)


def test_each_module_imports_only_its_own_layer_and_those_below() -> None:
    for room, path in _modules():
        for name in _imports(path):
            if name.startswith("msm_fast."):
                imported = name.split(".")[1]
                assert _layer(imported) <= _layer(room), f"{path} imports {name}"


def test_the_compiled_core_imports_nothing_above_it() -> None:
    for path in PACKAGE.glob("_core/*.pyx"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"], ["cimport"]) and words[1].startswith("msm_fast."):
                assert words[1].split(".")[1] in ("_core", "errors"), f"{path}: {line}"


def test_the_compiled_drivers_import_only_what_is_compiled() -> None:
    paths = list(PACKAGE.glob("drivers/*.pyx"))
    compiled = {f"msm_fast.drivers.{path.stem}" for path in paths}
    assert compiled
    for path in paths:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"], ["cimport"]) and words[1].startswith("msm_fast."):
                assert words[1] in compiled or words[1].startswith("msm_fast._core."), f"{path}: {line}"


def test_the_compiled_engine_imports_only_what_is_below_it_and_no_io() -> None:
    paths = list(PACKAGE.glob("engine/*.pyx"))
    assert paths
    for path in paths:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] not in (["import"], ["from"], ["cimport"]):
                continue
            room, _, rest = words[1].partition(".")
            assert room not in IO_AND_TIME, f"{path}: {line}"
            if room == "msm_fast":
                assert _layer(rest.split(".")[0]) <= _layer("engine"), f"{path}: {line}"


def test_the_engine_imports_no_io_and_no_clock() -> None:
    for path in PACKAGE.glob("engine/*.py"):
        for name in _imports(path):
            assert name.split(".")[0] not in IO_AND_TIME, f"{path} imports {name}"


def test_only_the_drivers_import_sockets() -> None:
    for room, path in _modules():
        if {"socket", "select", "pymemcache"} & {name.split(".")[0] for name in _imports(path)}:
            assert room in ("drivers", "cli"), path


def test_the_kernels_include_no_python() -> None:
    sources = list((PACKAGE.parent / "src_c").glob("*.[ch]"))
    assert sources
    for path in sources:
        assert "Python.h" not in path.read_text(), path
