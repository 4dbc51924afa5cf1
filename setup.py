"""Build the compiled core. Everything else about the package stands in pyproject.toml.

MSM_FAST_BUILD chooses one of three builds:
  release   what users get (default)
  trace     line tracing for coverage of the Cython code
  sanitize  AddressSanitizer and UndefinedBehaviorSanitizer, bounds checks on
CFLAGS has the last word on what it names.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = {
    "placement": ["placement"],
    "session_id": ["session_id"],
    "encoder": ["msgpack"],
    "decoder": ["msgpack"],
    "codec": [],
    "record": ["record"],
    "slots": ["record"],
    "session": [],
    "state": [],
    "attributes": [],
    "counts": [],
    "near_cache": [],
    "replies": ["wire"],
    "wire": [],
}

ABOVE_THE_CORE = [
    "engine.as_usual",
    "engine.copies",
    "engine.essentials",
    "engine.usual_loading",
    "engine.usual_saving",
    "engine.versions",
    "drivers.exchange",
    "drivers.idle_connections",
    "drivers.pipeline",
]

BUILDS = ("release", "trace", "sanitize")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

build = os.environ.get("MSM_FAST_BUILD", "release")
if build not in BUILDS:
    sys.exit(f"MSM_FAST_BUILD={build!r}: choose one of {', '.join(BUILDS)}")

compile_args = {
    # Python's own flags ask for debug information, which is most of a wheel, and names the folder that it was built in.
    "release": ["-O3", "-std=c11", "-g0"],
    "trace": ["-O1", "-std=c11"],
    "sanitize": ["-O1", "-g", "-std=c11", "-fno-omit-frame-pointer", *SANITIZERS],
}[build]
# setuptools puts these before ours, where -O3 and -g0 undo what a packager asks for.
compile_args += shlex.split(os.environ.get("CFLAGS", ""))
macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if build == "trace" else []


def extension(name: str, kernels: Sequence[str] = ()) -> Extension:
    """Return a compiled module of the package, with the C kernels that are linked into it."""
    return Extension(
        name,
        [name.replace(".", "/") + ".pyx", *kernels],
        include_dirs=["src_c"],
        # Also what puts them into an sdist that is made without git.
        depends=[*sorted(glob("msm_fast/*/*.p[yx][xd]")), *sorted(glob("src_c/*.h"))],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=SANITIZERS if build == "sanitize" else [],
    )


setup(
    ext_modules=cythonize(
        [
            extension(f"msm_fast._core.{module}", [f"src_c/msm_{kernel}.c" for kernel in kernels])
            for module, kernels in KERNELS.items()
        ]
        + [extension(f"msm_fast.{module}") for module in ABOVE_THE_CORE],
        compiler_directives={
            "language_level": 3,
            "boundscheck": build == "sanitize",
            "wraparound": False,
            "cdivision": True,
            "auto_pickle": False,
            "autotestdict": False,
            "embedsignature": True,
            "embedsignature.format": "python",
            "linetrace": build == "trace",
        },
    )
)
