"""What a process that serves takes of its machine."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from raytl.serving.share import limit_threads

COMPUTE = """
import os
from concurrent.futures import ThreadPoolExecutor
from raytl.serving.share import limit_threads
limit_threads(1)
import torch

convolution, linear = torch.nn.Conv2d(16, 64, 3), torch.nn.Linear(512, 2048)
images, rows = torch.zeros(16, 16, 64, 64), torch.zeros(512, 512)

def work():
    before = len(os.listdir("/proc/self/task"))
    with torch.inference_mode():
        convolution(images), linear(rows)
    return torch.get_num_threads(), len(os.listdir("/proc/self/task")) - before

with ThreadPoolExecutor(1) as pool:
    print(*pool.submit(work).result(), *work())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_on_one_cpu_torch_starts_no_further_thread_whatever_the_node_was_told():
    """A convolution that comes first in a thread goes by the environment, not by what another thread has set."""
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", COMPUTE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"] * 2


@pytest.mark.parametrize(
    ("cpus", "told", "threads"), [(1, "4", 1), (0.5, "4", 1), (3, "4", 3), (3.9, "2", 2), (2, None, 2), (0, "x", 1)]
)
def test_a_thread_for_each_cpu_and_fewer_where_the_node_was_told_so(monkeypatch, cpus, told, threads):
    set_to = []
    monkeypatch.setenv("OMP_NUM_THREADS", told or "")
    monkeypatch.setenv("MKL_NUM_THREADS", "")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=set_to.append))
    assert limit_threads(cpus) == threads
    assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], set_to) == (
        str(threads),
        str(threads),
        [threads],
    )
