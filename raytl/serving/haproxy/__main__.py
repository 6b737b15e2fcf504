"""HAProxy in the place of HAProxy, by an interpreter that knows none of the packages of raytl's environment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from raytl.serving.haproxy import main

main()
