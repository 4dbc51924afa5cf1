"""Compile a fuzz target with clang, and run it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "src_c"
TARGETS = sorted(path.stem for path in HERE.glob("*.c"))
# A reply line may have 2048 bytes; anything longer is only slower.
MAX_LEN = 2300
FLAGS = [
    *("-std=c11", "-g", "-O1", "-fno-omit-frame-pointer"),
    *("-Wall", "-Wextra", "-Wconversion", "-Werror"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"),
]


def missing() -> str:
    """Return what is missing to fuzz, as a sentence; nothing missing: an empty one."""
    if shutil.which("clang") is None:
        return "fuzzing needs clang with libFuzzer (Debian, Ubuntu: apt-get install clang)"
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "probe.c")
        source.write_text("int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n ? 0 : 0; }\n")
        command = ["clang", "-fsanitize=fuzzer,address,undefined", "-o", str(source.with_suffix("")), str(source)]
        probe = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"clang cannot link a fuzz target here: {probe.stderr[-300:]}"


def build(target: str, directory: Path) -> Path:
    """Compile a target with every kernel. Raises: CalledProcessError; what clang said is on stderr."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / target
    kernels = sorted(str(path) for path in KERNELS.glob("*.c"))
    command = ["clang", *FLAGS, f"-I{KERNELS}", "-o", str(program), str(HERE / f"{target}.c"), *kernels, "-lm"]
    subprocess.run(command, check=True)
    return program


def fuzz(program: Path, found: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run a target from its corpus for some seconds.

    found: a directory for new inputs; what broke a property is there as crash-…, timeout-… or oom-….
    """
    found.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(program), str(found), str(HERE / "corpus" / program.name)),
        *(f"-max_total_time={seconds}", f"-max_len={MAX_LEN}", f"-artifact_prefix={found}/"),
        *("-timeout=5", "-rss_limit_mb=512", "-print_final_stats=1"),
    ]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=dict(os.environ))
