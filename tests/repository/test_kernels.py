"""The C of the package: no warning from either compiler, and each kernel is fuzzed."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = sorted((ROOT / "src_c").glob("*.c"))
# Only here: a warning that a newer compiler brings is no reason not to build for a user.
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wvla", "-Werror"]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_compiles_without_a_warning(kernel, compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    # At the optimization of the release: some warnings come from what the optimizer sees.
    command = [compiler, "-std=c11", "-O3", *WARNINGS, "-c", "-o", str(tmp_path / "kernel.o"), str(kernel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cython_makes_compiles_without_a_warning():
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    modules = sorted(str(path.with_suffix(".c")) for path in (ROOT / "msm_fast").glob("*/*.pyx"))
    # Whether signs fit is checked for the kernels; Cython converts lengths of objects as it sees fit.
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
    # Python's own headers are not ours to mend.
    include = ["-isystem", sysconfig.get_path("include"), "-I", str(ROOT / "src_c")]
    command = ["gcc", "-std=c11", "-fsyntax-only", *warnings, *include, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_function_of_the_kernels_is_called_by_a_fuzz_target():
    targets = "".join(path.read_text() for path in (ROOT / "tests" / "fuzz").glob("*.c"))
    for header in (ROOT / "src_c").glob("*.h"):
        for line in header.read_text().splitlines():
            if not line.startswith((" ", "/", "#", "typedef")) and "(" in line:
                name = line.partition("(")[0].split()[-1].lstrip("*")
                assert name in targets, f"{name} of {header.name} is not fuzzed"
