"""Ctrl-C arrives wherever it is pressed, and leaves no lock taken."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import _imp, os, signal, sys, threading, time
from importlib._bootstrap import _get_module_lock
from raytl.cli.interrupts import interruptible

condition = threading.Condition()
def enter():
    with condition:
        pass

BUSY = {"import": lambda: _get_module_lock("some.module"), "condition": enter}[sys.argv[1]]

def press(begun):
    begun.wait()
    time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGINT)

def taken():
    return _imp.lock_held() or condition._is_owned()

for number in range(50):
    begun = threading.Event()
    thread = threading.Thread(target=press, args=[begun])
    thread.start()
    interruptible()
    try:
        begun.set()
        while True:
            BUSY()
    except KeyboardInterrupt:
        pass
    thread.join()
    if taken():
        sys.exit(f"Ctrl-C number {number} left a lock taken")
print("all arrived")
"""


@pytest.mark.parametrize("busy", ["import", "condition"])
def test_it_arrives_and_leaves_no_lock_taken(busy: str) -> None:
    """The import lock is taken and given back again and again, in the callback of a weak reference, too."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, busy], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all arrived\n", "")
