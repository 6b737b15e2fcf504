"""What the page says of the commands that it started."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from raytl.ui.children import Children, _Child


def test_a_document_that_was_cut_off_is_no_reason_to_show_nothing_of_the_run() -> None:
    """A full disk takes the rest of it; what was said on standard error is told then."""
    code = "import sys; sys.stdout.write('{\"error\": \"no'); sys.stderr.write('no space left\\n'); sys.exit(1)"
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - the child's, as in Children
    process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err)
    process.wait(timeout=60)
    children = Children("runs")
    children._of["flowers"] = _Child(["search"], process, out, err)
    assert children.of("flowers") == {"command": "search", "code": 1, "said": "no space left", "url": None}
