"""What users install: the wheel and the sdist, in clean environments, for each supported Python that is here."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MINORS = ("3.10", "3.11", "3.12", "3.13")
NOT_SOURCES = (".venv*", "build", "dist", ".*_cache", ".hypothesis", ".benchmarks", "__pycache__", "*.egg-info", "*.so")

# Says "3.12" where packages can be built: with venv, ensurepip and Python's headers.
ASK_VERSION = """
import ensurepip, os, sys, sysconfig, venv
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print("%d.%d" % sys.version_info[:2])
"""

SHOW_FLAGS = """
import setuptools
from distutils.core import run_setup
print(*run_setup("setup.py", stop_after="init").ext_modules[0].extra_compile_args)
"""

USE_IT = """
import importlib.metadata, re, sys
import msm_fast
from msm_fast import RendezvousHash, SessionManager

assert msm_fast.__file__.startswith(sys.prefix), msm_fast.__file__
ring = RendezvousHash(["n1", "n2", "n3"])
assert ring.node_for("key") == ring.ranked("key", 1)[0]

manager = SessionManager()
with manager.request(None) as session:
    session["cart"] = {"tea": 2, "paid": None, "at": (1, 2.5)}
    session_id = session.id
with manager.request(str(session_id)) as session:
    session["cart"]["tea"] += 1
with manager.request(str(session_id)) as session:
    assert session["cart"] == {"tea": 3, "paid": None, "at": (1, 2.5)}, session["cart"]
manager.close()

required = importlib.metadata.requires("msm-fast")
print(*sorted(re.match("[A-Za-z0-9_-]+", line)[0] for line in required if "extra ==" not in line))
"""


def interpreters():
    """Return one interpreter for each minor version; the running one for its own."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for minor in MINORS:
        candidates = [shutil.which(f"python{minor}"), *Path.home().glob(f".pyenv/versions/{minor}*/bin/python{minor}")]
        for candidate in filter(None, candidates):
            if minor not in found:
                asked = subprocess.run([candidate, "-c", ASK_VERSION], capture_output=True, text=True, check=False)
                if asked.stdout.strip() == minor:
                    found[minor] = str(candidate)
    return dict(sorted(found.items()))


INTERPRETERS = interpreters()


def run(*command, cwd):
    """Run a command as a user would: without this run's environment variables for Python, outside the tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}"
    return done.stdout


def copy_tree(target):
    """Copy the sources, as they are, with git's index: builds of several Pythons must not meet in one tree."""

    def ignore(directory, names):
        ignored = shutil.ignore_patterns(*NOT_SOURCES)(directory, names)
        is_built = directory.endswith(("_core", "engine", "drivers"))
        return ignored | ({name for name in names if name.endswith(".c")} if is_built else set())

    return shutil.copytree(ROOT, target, ignore=ignore, symlinks=True)


def install_and_use(interpreter, package, directory):
    """Install package into a clean environment, use it there, and return what it requires."""
    run(interpreter, "-m", "venv", directory / "venv", cwd=directory)
    python = directory / "venv/bin/python"
    run(python, "-m", "pip", "install", package, cwd=directory)
    return run(python, "-I", "-c", USE_IT, cwd=directory).splitlines()[-1]


def through_wheel(interpreter, directory):
    """Build a wheel of the tree; return what installing it requires, and the files in it, by name."""
    tree = copy_tree(directory / "tree")
    run(interpreter, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", directory / "wheels", tree, cwd=directory)
    (wheel,) = (directory / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return install_and_use(interpreter, wheel, directory), files


def build_sdist(tree):
    """Make an sdist of a tree beside it."""
    build = "import setuptools.build_meta; setuptools.build_meta.build_sdist('..')"
    run(sys.executable, "-c", build, cwd=tree)
    (path,) = tree.parent.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build_sdist(copy_tree(tmp_path_factory.mktemp("sdist") / "tree"))


@pytest.fixture(scope="module")
def sdist_without_git(sdist, tmp_path_factory):
    """Made of the same tree, in which something was built meanwhile."""
    tree = tmp_path_factory.mktemp("archive") / "tree"
    shutil.copytree(sdist.parent / "tree", tree, ignore=shutil.ignore_patterns(".git", "*.egg-info"))
    assert list(tree.glob("msm_fast/*/*.c"))
    (tree / "msm_fast/_core/codec.cpython-310-x86_64-linux-gnu.so").touch()
    return build_sdist(tree)


def names_in(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    return {name for name in names if not name.startswith("msm_fast.egg-info/")}  # what setuptools adds


@pytest.fixture(scope="module")
def jobs(sdist, tmp_path_factory):
    """Both ways for each interpreter, two at a time, as futures."""
    with ThreadPoolExecutor(2) as executor:
        futures = {}
        for minor, interpreter in INTERPRETERS.items():
            directory = tmp_path_factory.mktemp(f"wheel-{minor}")
            futures["wheel", minor] = executor.submit(through_wheel, interpreter, directory)
            directory = tmp_path_factory.mktemp(f"sdist-{minor}")
            futures["sdist", minor] = executor.submit(install_and_use, interpreter, sdist, directory)
        yield futures


@pytest.mark.parametrize("minor", INTERPRETERS)
def test_a_wheel_of_the_tree_works_in_a_clean_environment(jobs, minor):
    requires, _ = jobs["wheel", minor].result()
    assert requires == "pymemcache xxhash"


@pytest.mark.parametrize("minor", INTERPRETERS)
def test_the_sdist_builds_and_works_in_a_clean_environment(jobs, minor):
    assert jobs["sdist", minor].result() == "pymemcache xxhash"


def test_a_wheel_has_stubs_and_modules_and_no_sources(jobs):
    for minor in INTERPRETERS:
        _, names = jobs["wheel", minor].result()
        modules = {str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "msm_fast").glob("*/*.pyx")}
        assert {name.partition(".")[0] for name in names if name.endswith(".so")} == modules
        assert {f"{module}.pyi" for module in modules} <= set(names)
        assert "msm_fast/py.typed" in names
        assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".pxd"))]
        assert not [name for name in names if not name.startswith(("msm_fast/", "msm_fast-"))]


def test_a_wheel_does_not_depend_on_where_it_was_built(jobs):
    for minor in INTERPRETERS:
        _, files = jobs["wheel", minor].result()
        modules = {name: data for name, data in files.items() if name.endswith(".so")}
        assert not [name for name, data in modules.items() if b"/tree/" in data or b".debug_info" in data]


def test_whoever_builds_has_the_last_word_on_flags_of_the_compiler(sdist, monkeypatch):
    monkeypatch.setenv("CFLAGS", "-O2 -g '-ffile-prefix-map=/a b=.'")
    asked = run(sys.executable, "-c", SHOW_FLAGS, cwd=sdist.parent / "tree")
    assert asked.splitlines()[-1].endswith(" -g0 -O2 -g -ffile-prefix-map=/a b=.")


def test_the_sdist_has_all_that_a_build_needs_and_nothing_built(sdist):
    names = names_in(sdist)
    needed = [
        *(ROOT / "msm_fast").glob("*/*.py[xdi]*"),
        *(ROOT / "src_c").glob("*.[ch]"),
        *(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".html", ".md")),
        *(ROOT / name for name in ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py")),
    ]
    missing = {str(path.relative_to(ROOT)) for path in needed if path.exists()} - names
    assert not missing
    assert not [name for name in names if name.endswith(".so")]
    assert not [name for name in names if name.startswith("msm_fast/") and name.endswith(".c")]


def test_an_sdist_that_is_made_without_git_has_the_same_files(sdist, sdist_without_git):
    assert names_in(sdist_without_git) == names_in(sdist)


def test_what_is_made_of_no_release_is_older_than_the_next(sdist_without_git):
    assert ".dev" in sdist_without_git.name
