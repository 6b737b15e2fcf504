"""The command ``raytl-serve`` where raytl itself is not installed. All it does is in ``raytl/serving/runtime.py``."""

import sys
from pathlib import Path


def main() -> None:
    """Run it with the modules of raytl that lie beside this file, whether or not a raytl is installed as well."""
    sys.path.insert(0, str(Path(__file__).parent / "shared"))
    from raytl.serving.runtime import main as run

    run()
