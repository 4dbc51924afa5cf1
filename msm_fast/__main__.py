"""Run the msm-fast command as ``python -m msm_fast``."""

import sys

from msm_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
