"""Flask's own suite, with our session interface in every application that its tests make."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill

from tests.memcached import Memcached
from tests.suites.page import Section, table

TOOLS = ("pytest<9", "python-dotenv", "asgiref")
"""What the suite needs; it imports a name that pytest 9 no longer has."""

NO_SECRET = "no secret is needed: the cookie holds an id, and the session is in memcached"
EXCLUDED = {
    "test_basic::test_missing_session": f"expects the session to be refused without SECRET_KEY; {NO_SECRET}",
    "test_basic::test_session_secret_key_fallbacks": f"expects the session to be lost with its secret; {NO_SECRET}",
    "test_testing::test_session_transactions_no_null_sessions": (
        f"expects the session to be refused without SECRET_KEY; {NO_SECRET}"
    ),
    "test_basic::test_session_using_samesite_attribute": (
        "expects the cookie again in each response that sets an attribute; ours is set when the id changes, and when "
        "the expiry of a permanent session slides. tests/unit/integrations/flask/test_sessions.py has SameSite"
    ),
}

Outcomes = dict[str, str]


def run(cache: Path) -> Section:
    """Run the suite of the Flask that is installed, as it is and with our interface."""
    version = importlib.metadata.version("flask")
    source = _source(cache, version)
    tools = _tools(cache)
    plain = _outcomes(source, tools, cache / "flask-plain.xml", [], {})
    with ExitStack() as stack:
        nodes = []
        for name in ("n1", "n2"):
            server = Memcached()
            stack.callback(server.stop)
            nodes.append(f"{name}:{server.address}")
        ours = _outcomes(
            source, tools, cache / "flask.xml", ["-p", "tests.suites.flask_plugin"], {"MSM_FAST_NODES": ",".join(nodes)}
        )
    return _section(version, plain, ours)


def _source(cache: Path, version: str) -> Path:
    folder = cache / f"flask-{version}"
    if not folder.exists():
        _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(cache), f"Flask=={version}")
        with tarfile.open(cache / f"flask-{version}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return folder


def _tools(cache: Path) -> Path:
    folder = cache / "flask-tools"
    if not folder.exists():
        _pip("install", "--target", str(folder), *TOOLS)
    return folder


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def _outcomes(source: Path, tools: Path, report: Path, options: list[str], environ: dict[str, str]) -> Outcomes:
    """Return what became of each test, by module and name."""
    report.unlink(missing_ok=True)
    path = os.pathsep.join([str(tools), str(Path(__file__).parents[2])])
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options, "tests"]
    subprocess.run(
        command,
        cwd=source,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environ},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").removeprefix("tests.").replace(".", "::")
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes[f"{module}::{case.get('name')}"] = bad[0] if bad else "passed"
    return outcomes


def _section(version: str, plain: Outcomes, ours: Outcomes) -> Section:
    failed = {name for name, outcome in ours.items() if outcome in ("failure", "error")}
    before = {name for name, outcome in plain.items() if outcome in ("failure", "error")}
    unexpected = sorted(failed - before - EXCLUDED.keys())
    stale = sorted(name for name in EXCLUDED if ours.get(name) != "failure")
    n_passed = sum(outcome == "passed" for outcome in ours.values())
    summary = f"Flask {version}: {n_passed} of {len(ours)} tests pass, {len(EXCLUDED)} are excluded"
    text = [
        fill(
            f"Flask {version}: {n_passed} of {len(ours)} tests pass. Excluded are the {len(EXCLUDED)} of this table; "
            f"{_named(sorted(failed & before))} without msm_fast as well.",
            120,
        ),
        table(("test", "reason"), [(f"`{name}`", reason) for name, reason in EXCLUDED.items()]),
    ]
    for words, names in (("These fail:", unexpected), ("These are excluded and do not fail:", stale)):
        if names:
            text += [words, "\n".join(f"- `{name}`" for name in names)]
            summary += f"\n{words} {', '.join(names)}"
    return Section("Flask", "\n\n".join(text), summary, not unexpected and not stale)


def _named(names: list[str]) -> str:
    return f"{', '.join(f'`{name}`' for name in names)} fail{'s' if len(names) == 1 else ''}" if names else "none fails"
