from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.tasks import Task, read_labelled
from tests.tasks.pictures import make_folder

CLASSES = ("cat", "dog")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of images and of tables that name them, by path and by address."""
    root = make_folder(tmp_path / "served", dict.fromkeys(CLASSES, 4))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        at = f"http://127.0.0.1:{server.server_port}"
        for name, start in (("relative.csv", ""), ("absolute.csv", f"{at}/")):
            body = [f"{start}{label}/{n}.png,{label}" for label in CLASSES for n in range(4)]
            (root / name).write_text("\n".join(["path,label", *body, f"{start}cat/9.png,cat"]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield at
        server.shutdown()


@pytest.mark.parametrize("name", ["relative.csv", "absolute.csv"])
def test_tables_and_images_on_the_web_are_read_and_fetched_once(name: str, address: str) -> None:
    result = read_labelled(f"{address}/{name}")
    assert result.images.counts() == {"cat": 4, "dog": 4}
    assert [str(problem) for problem in result.problems] == [f"{address}/cat/9.png: no such file; left out"]
    items = pickle.loads(pickle.dumps(result.images)).items
    assert all(item.data.startswith(b"\x89PNG") for item in items)
    assert Task(f"{address}/{name}").name == name.removesuffix(".csv")


def test_what_the_web_does_not_give_is_one_sentence(address: str) -> None:
    with pytest.raises(UserError, match=r"nowhere.csv: no such file"):
        read_labelled(f"{address}/nowhere.csv")
    with pytest.raises(UserError, match=r"the web does not give it: Cannot connect to host 127.0.0.1:9") as caught:
        read_labelled("http://127.0.0.1:9/t.csv")
    assert "\n" not in str(caught.value)
