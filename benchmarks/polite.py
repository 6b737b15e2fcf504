"""Imported before torch: threads that wait for each other let others have the core, as raytl's own do.

Where a core is taken by something else, threads that wait by spinning hold up the very ones that they wait for.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
