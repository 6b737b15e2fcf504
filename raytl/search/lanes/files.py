"""Images in files, for lanes on nodes that may not have the files.

What travels to the lanes is where the files are, or in which rows of large tables. A lane reads a file itself where it
finds it and it is the same one: on a mount that the nodes share, in an object store that it may read. Otherwise it asks
the driver, which has read them all once and reads them again, some at a time. So nobody holds more than a few images,
no node needs room for all of them, and nothing has to be sent before the search begins.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import ray
from PIL import Image
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.search.lanes import store
from raytl.tasks import ImageItem, TrainingData
from raytl.tasks.decoding import decode
from raytl.tasks.items import FileItem
from raytl.tasks.readers.archive import Archive
from raytl.tasks.rows import InPlace, RowItem

AT_ONCE_BYTES = 16 * 2**20
"""Of what is read ahead, about so much at a time."""
MOST_AHEAD = 256
"""Files that are read ahead at most."""
TOGETHER = 8
"""Files that are read at the same time where they are far away: a request for each takes longer than its bytes."""
CLOSING_S = 10.0
_PART = "a part of the search's data"
Item = FileItem | RowItem
"""What is read where it lies."""


@contextmanager
def shared(data: TrainingData) -> Iterator[TrainingData]:
    """The data as lanes on all nodes can read them; the driver answers what they ask for as long as the context lasts.

    What lies in memory already, as of small tables with the images in them, goes along as it is.
    """
    files = [item for item in _items(data) if isinstance(item, Item)]
    if not files:
        yield data
        return
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 1000, "max_restarts": -1, "max_task_retries": -1}
    desk = ray.remote(Desk).options(scheduling_strategy=here, **options).remote()
    over = threading.Event()
    thread = threading.Thread(target=_serve, args=(desk, files, over), name="raytl-files", daemon=True)
    thread.start()
    common, numbers = Files(carried(files), partial(_ask, desk)), iter(range(len(files)))
    try:
        yield data.with_items(lambda item: SharedItem(common, next(numbers)) if isinstance(item, Item) else item)
    finally:
        over.set()
        with suppress(RayError):
            desk.close.remote()
            thread.join(CLOSING_S)
            ray.kill(desk)


def _items(data: TrainingData) -> Iterator[ImageItem]:
    """All images, in the order of :meth:`TrainingData.with_items`."""
    roles = [data.target, data.unlabelled, *data.source_domains.values()]
    return chain.from_iterable(images.items for images in roles if images is not None)


def carried(items: Sequence[Item]) -> list[Item]:
    """The same files for processes that may not have what their file systems need: a package, a key."""
    known: dict[int, Carried] = {}
    tables: dict[int, InPlace] = {}
    moved = list[Item]()
    for item in items:
        if _is_far(item):
            if id(item.filesystem) not in known:
                known[id(item.filesystem)] = Carried.of(item.filesystem)
            way = known[id(item.filesystem)]
            if isinstance(item, RowItem):
                item = replace(item, rows=tables.setdefault(id(item.rows), item.rows.on(way)))
            else:
                item = replace(item, filesystem=way)
        moved.append(item)
    return moved


class Carried:
    """A file system that is made when a file of it is opened: where it cannot be made all else arrives."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._made: Any = None

    @classmethod
    def of(cls, filesystem: Any) -> Carried:
        """It, or one that nobody can make, of one that does not travel: somebody else's that holds what lives here."""
        try:
            return cls(cloudpickle.dumps(filesystem))
        except Exception:  # noqa: BLE001  # whatever such a thing raises
            return cls(b"")

    def __reduce__(self) -> tuple[Any, ...]:
        return Carried, (self._pickled,)

    def open_input_file(self, path: str) -> Any:
        """As of the file system itself. Raises what that does, and what goes wrong with making it."""
        if self._made is None:
            self._made = cloudpickle.loads(self._pickled)
        return self._made.open_input_file(path)


@dataclass(frozen=True)
class SharedItem:
    """An image in a file of the driver's, in a lane. number: of the file among ``files``."""

    files: Files = field(repr=False)
    number: int

    @property
    def name(self) -> str:
        """The file's."""
        return self.files.items[self.number].name

    @property
    def digest(self) -> str:
        """The file's, as the driver found it."""
        return self.files.items[self.number].digest

    def read(self) -> bytes:
        """The encoded bytes. Raises UserError where neither this process nor the driver can read them any more."""
        return self.files.read(self.number)

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.read(), self.name)


class Files:
    """The files of a search's images, as a lane reads them: holds what it read last, and somewhat beyond.

    Images are decoded in their order, so that most of what is read ahead is wanted; where they are picked here and
    there nothing is read ahead. items: as the driver has them. ask: has the driver read a file, by its number, and of
    those behind it so many that there are up to a given count; says why, where it cannot.
    """

    def __init__(self, items: Sequence[Item], ask: Callable[[int, int], list[bytes] | str]) -> None:
        self.items = items
        self._ask = ask
        self._lock = threading.Lock()
        self._first, self._held = 0, list[bytes]()
        self._ahead = 1
        self._closed = set[int]()  # file systems and tables, by identity, that this process does not read from

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.items, self._ask)

    def read(self, number: int) -> bytes:
        """The content of a file, the same that the driver found in it. Raises UserError where it cannot be had."""
        with self._lock:
            if not self._first <= number < self._first + len(self._held):
                end = self._first + len(self._held)
                self._ahead = min(2 * self._ahead, MOST_AHEAD) if end <= number <= end + self._ahead else 1
                self._held = self._here(number) or self._from_driver(number)
                self._first = number
            return self._held[number - self._first]

    def _here(self, number: int) -> list[bytes]:
        """The content of a file, and of some more where it is far away; none where this process cannot read it."""
        item = self.items[number]
        filesystem, far = item.filesystem, _is_far(item)
        sources = {id(filesystem)} if far else set[int]()  # that may take seconds each time to refuse something
        sources |= {id(item.rows)} if isinstance(item, RowItem) else set()
        # A packed tar file would be unpacked on each node's disk; the driver has unpacked it.
        if (
            isinstance(item, FileItem) and isinstance(filesystem, Archive) and not filesystem.at_hand(item.path)
        ) or sources & self._closed:
            return []
        try:
            return read_ahead(self.items[number : number + (self._ahead if far else 1)])
        except Exception:  # noqa: BLE001  # what fsspec's file systems raise is their own; the driver says what is wrong
            self._closed |= sources
            return []

    def _from_driver(self, number: int) -> list[bytes]:
        answer = self._ask(number, self._ahead)
        if isinstance(answer, str):
            raise UserError(answer)
        return answer


def read_ahead(items: Sequence[Item]) -> list[bytes]:
    """The contents of some files: of the first, and of those behind it up to ``AT_ONCE_BYTES`` or to a bad one.

    Raises UserError where the first cannot be read or is another than it was.
    """
    contents = _some(items)
    while len(contents) < len(items) and sum(map(len, contents)) < AT_ONCE_BYTES:
        try:
            contents += _some(items[len(contents) :])
        except UserError:
            break
    return contents


def _some(items: Sequence[Item]) -> list[bytes]:
    """The content of the first file, and of some behind it where they are far away, each by itself."""
    if _is_far(items[0]) and isinstance(items[0], FileItem) and len(items) > 1:
        with suppress(UserError), ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(_same, items[:TOGETHER]))
    return [_same(items[0])]


def _is_far(item: Item) -> bool:
    return item.filesystem is not None and not isinstance(item.filesystem, Archive)


def _same(item: Item) -> bytes:
    """The content of a file, which is what the driver found in it; a row of a table sees to that itself."""
    content = item.read()
    if isinstance(item, FileItem) and item.digest and hash_bytes(content) != item.digest:
        raise UserError(f"{item.name}: is not what it was when the search began; put it back or search anew")
    return content


class Desk:
    """The actor by which lanes ask the driver, which is none itself. One event loop, so no locks."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[str, int, int] | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[list[bytes] | str]] = {}

    async def ask(self, number: int, count: int) -> Any:
        """The lane's side: the contents (a list) of a file and of up to ``count - 1`` behind it, or why not."""
        ticket = uuid.uuid4().hex
        answer = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((ticket, number, count))
        try:
            return await answer
        finally:
            del self._waiting[ticket]

    async def next(self) -> tuple[str, int, int] | None:
        """The driver's side: what is asked for next (ticket, number, count), once it is; None at the end."""
        return await self._asked.get()

    async def answer(self, ticket: str, given: list[bytes] | str) -> None:
        """Pass the driver's answer on."""
        waiting = self._waiting.get(ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(given)

    async def close(self) -> None:
        """Let the driver go."""
        self._asked.put_nowait(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result("the search is over")


def _ask(desk: Any, number: int, count: int) -> list[bytes] | str:
    """The lane's side of a question to the driver. Raises UserError where nobody answers."""
    try:
        answer: list[bytes] | str = store.get(desk.ask.remote(number, count), _PART)
    except RayError as error:
        why = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"images that this node does not have cannot be had from where the search was started ({why})"
        ) from None
    return answer


def _serve(desk: Any, files: Sequence[Item], over: threading.Event) -> None:
    """Answer what is asked at the desk until it is over: lanes wait for the answers, whatever becomes of the desk."""
    while not over.is_set():
        try:
            asked = ray.get(desk.next.remote())
        except RayError:
            over.wait(1.0)
            continue
        if asked is not None:
            ticket, number, count = asked
            desk.answer.remote(ticket, _answer(files[number : number + count]))


def _answer(items: Sequence[Item]) -> Any:
    """A reference to the contents, or why they cannot be had."""
    try:
        return store.put(read_ahead(items), _PART)
    except Exception as error:  # noqa: BLE001  # a lane waits for an answer, whatever went wrong
        return str(error) or type(error).__name__
