"""raytl's runtime without torch and Ray, as ``raytl-serve`` starts it.

python benchmarks/peers/runtime_server.py BUNDLE PORT
"""

import sys

from raytl.serving.runtime import main

main([sys.argv[1], "--port", sys.argv[2]])
