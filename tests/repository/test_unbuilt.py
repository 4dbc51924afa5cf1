"""Sources that nobody has built, or only for another Python, say so: in a checkout they go before what is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_import_from_a_checkout_that_is_not_built_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "msm_fast", tmp_path / "msm_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", "import msm_fast"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: msm_fast is not built for this Python in {tmp_path / 'msm_fast'}: ")
    assert "pip install -e ." in last
