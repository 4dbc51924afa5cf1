"""Django's own suites with our session engine: of session backends, and of its apps that use sessions."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill

from tests.memcached import Memcached
from tests.suites.page import Section, table

APPS = ("messages_tests", "csrf_tests", "test_client", "test_client_regress", "auth_tests")

EXCLUDED = {
    "SessionMiddlewareTests.test_empty_session_saved": (
        "looks the session up in Django's database table, where no other engine has it. "
        "tests/unit/integrations/django/test_middleware.py has the same sentence"
    ),
    "TestLoginRequiredMiddleware.test_protected_view_logged_in_performance": (
        "counts the query that looks the session up in Django's database table, where no other engine has it. "
        "Django has the test since 6.0"
    ),
}

ROOT = Path(__file__).parents[2]

_FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)
_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
_SKIPPED = re.compile(r"skipped=(\d+)")


def run(cache: Path) -> Section:
    """Run the suites of the Django that is installed, with its own session middleware and with ours."""
    version = importlib.metadata.version("Django")
    folder = _source(cache, version) / "tests"
    rows, unexpected, seen = [], [], set()
    n_passed = n_run = 0
    with ExitStack() as stack:
        nodes = []
        for name in ("n1", "n2"):
            server = Memcached()
            stack.callback(server.stop)
            nodes.append(f"{name}:{server.address}")
        for middleware, is_ours in (("Django's", False), ("msm_fast's", True)):
            environ = {"MSM_FAST_NODES": ",".join(nodes), "MSM_FAST_MIDDLEWARE": str(int(is_ours))}
            for suite, command in _commands():
                n, n_skipped, failed = _outcome(command, folder, environ)
                excluded = failed & EXCLUDED.keys()
                seen |= excluded
                unexpected += [f"{name} ({suite}, {middleware} middleware)" for name in sorted(failed - excluded)]
                rows.append((suite, middleware, str(n - n_skipped - len(failed)), str(n_skipped), str(len(excluded))))
                n_run += n
                n_passed += n - n_skipped - len(failed)
    return _section(version, rows, n_passed, n_run, unexpected, stale_exclusions(folder, seen))


def stale_exclusions(folder: Path, failed: set[str]) -> list[str]:
    """Return the exclusions of tests that have not failed, but for those that the Django in folder does not have."""
    paths = (path for suite in ("sessions_tests", *APPS) for path in (folder / suite).rglob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    return [name for name in sorted(EXCLUDED.keys() - failed) if f"def {name.partition('.')[2]}(" in text]


def _source(cache: Path, version: str) -> Path:
    folder = cache / f"django-{version}"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        only_source = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        subprocess.run([*pip, *only_source, "--dest", str(cache), f"Django=={version}"], check=True)
        with tarfile.open(next(cache.glob(f"[dD]jango-{version}.tar.gz"))) as archive:
            archive.extractall(cache, filter="data")
    return next(cache.glob(f"[dD]jango-{version}"))


def _commands() -> list[tuple[str, list[str]]]:
    return [
        ("sessions_tests", ["-m", "tests.suites.django_sessions"]),
        *((app, ["runtests.py", "--settings=tests.suites.django_settings", "--parallel=1", app]) for app in APPS),
    ]


def _outcome(command: list[str], folder: Path, environ: dict[str, str]) -> tuple[int, int, set[str]]:
    """Return how many tests were run and skipped, and the names of those that failed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    ran = _RAN.search(done.stdout)
    if ran is None:
        raise RuntimeError(f"{' '.join(command)} has run no test:\n{done.stdout[-4000:]}")
    skipped = _SKIPPED.search(done.stdout)
    # Python 3.11 and later name the test once more after its class.
    failed = {f"{place.removesuffix('.' + test).split('.')[-1]}.{test}" for test, place in _FAILED.findall(done.stdout)}
    return int(ran[1]), int(skipped[1]) if skipped else 0, failed


def _section(
    version: str, rows: list[tuple[str, ...]], n_passed: int, n_run: int, unexpected: list[str], stale: list[str]
) -> Section:
    summary = f"Django {version}: {n_passed} of {n_run} tests pass"
    text = [
        fill(
            f'Django {version}, with `SESSION_ENGINE = "msm_fast.integrations.django"`: its tests of session backends '
            "and of the session middleware (`sessions_tests`, the classes that are not about one of Django's own "
            "backends), and those of its apps that use sessions. Each was run with Django's session middleware and "
            "with msm_fast's in its place. What is skipped Django skips with its own sessions too, for want of an "
            "optional package for example.",
            120,
        ),
        table(("suite", "middleware", "passed", "skipped", "excluded"), rows),
        table(("excluded test", "reason"), [(f"`{name}`", reason) for name, reason in EXCLUDED.items()]),
    ]
    for words, names in (("These fail:", unexpected), ("These are excluded and do not fail:", stale)):
        if names:
            text += [words, "\n".join(f"- `{name}`" for name in names)]
            summary += f"\n{words} {', '.join(names)}"
    return Section("Django", "\n\n".join(text), summary, not unexpected and not stale)
