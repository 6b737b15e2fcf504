"""The same with the bundle's ONNX file of 8 bits.

python benchmarks/peers/runtime_int8_server.py BUNDLE PORT
"""

import sys

from raytl.serving.runtime import main

main([sys.argv[1], "--port", sys.argv[2], "--int8"])
