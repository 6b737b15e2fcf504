"""One served model in one process: decoding in threads, batches on the network, models swapped between requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raytl.bundles.predictor import Predictor
from raytl.core.errors import UserError
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.serving.batching import Batcher
from raytl.serving.decoding import Decoder
from raytl.serving.evidence import Tally
from raytl.serving.health import Board, Monitor
from raytl.serving.live import LiveModel, load
from raytl.serving.requests import NamedBytes
from raytl.serving.settings import ServingSettings
from raytl.serving.trial import Trial

if TYPE_CHECKING:
    from raytl.serving.capture import Capture

Load = Callable[[ServingSettings], LiveModel]
Tell = Callable[[str, Tally, str], Awaitable[None]]
_TELL_S = 0.5
_UNTOLD = 60  # times in a row that nobody hears: no judge needs as long to begin
_LOG = logging.getLogger("ray.serve")


class Service:
    """Classifies encoded images with the live model, or with one on trial. Belongs to one event loop.

    load: makes a live model of a bundle. tell: is told every half second, by the trial's name, what was counted of it
    so far. board: where replicas put what they have seen of the images that came in, for all to be judged together.
    """

    def __init__(self, load: Load = load, tell: Tell | None = None, board: Board | None = None) -> None:
        self._load = load
        self.monitor = Monitor(board)
        self.capture: Capture | None = None
        self._live: LiveModel | None = None
        self._trial: Trial | None = None
        self._batcher = Batcher()
        self._decoder = Decoder()
        self._tell = tell
        self._telling: asyncio.Task[None] | None = None
        self.refused = ""

    @property
    def live(self) -> LiveModel:
        """The model that answers now."""
        if self._live is None:
            raise RuntimeError("no model was loaded")
        return self._live

    @property
    def trial(self) -> Trial | None:
        """The version on trial and what was counted of it, or None."""
        return self._trial

    @property
    def broken(self) -> str:
        """Why the model cannot compute any more, in one sentence; "" while it can."""
        return self._batcher.broken

    async def apply(self, settings: ServingSettings) -> None:
        """Serve under these settings, loading bundles off the event loop; requests go on meanwhile.

        A version that is loaded already is not loaded again.
        Raises UserError where the first bundle cannot be loaded. A later one that cannot, and one on trial, is recorded
        in ``refused``, and what was there before stays, because Serve would stop a replica whose reconfiguration
        raises.
        """
        refused, trial = "", None
        try:
            live = await self._loaded(replace(settings, candidate=None))
        except UserError as error:
            if self._live is None:
                raise
            self.refused = str(error)
            return
        if settings.candidate is not None:
            try:
                trial = await self._tried(settings)
            except UserError as error:
                refused = str(error)
        before, self._trial = self._trial, trial
        self._live, self.refused = live, refused
        self.monitor.serves(live.version)
        if before is not None and before is not trial:
            before.close()
        if self._tell is not None and trial is not None and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._keep_telling())
        await self._capture_as(settings)

    async def _loaded(self, settings: ServingSettings) -> LiveModel:
        known = [self._live, self._trial.candidate if self._trial is not None else None]
        for live in known:
            if live is not None and settings.version == live.version:
                return replace(live, settings=settings)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._load, settings)
        except UserError:
            raise
        except Exception as error:  # no memory for it, say: Serve would stop the replica with the model that it serves
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{settings.bundle}: the bundle cannot be loaded ({said}); look whether there is memory for it"
            ) from error

    async def _tried(self, settings: ServingSettings) -> Trial:
        rules = settings.candidate
        assert rules is not None
        if self._trial is not None and self._trial.rules == rules:
            return self._trial
        return Trial(await self._loaded(settings.of_candidate), rules, self._decoder)

    async def _keep_telling(self) -> None:
        untold = 0
        while (trial := self._trial) is not None:
            await asyncio.sleep(_TELL_S)
            if self._tell is None:
                continue
            try:
                await self._tell(trial.rules.trial, trial.tally, trial.counter)
                untold = 0
            except Exception as error:  # noqa: BLE001 - the judge may be gone, or not there yet; the next time tells all
                untold += 1
                if untold == _UNTOLD:
                    why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                    _LOG.warning(
                        "the judge of the version on trial hears nothing (%s): promote it or roll it back", why
                    )

    async def answer(self, live: LiveModel, images: Sequence[NamedBytes]) -> tuple[LiveModel, np.ndarray]:
        """Who answers, ``live`` unless another version is on trial, and what; as :meth:`classify`."""
        trial = self._trial
        if trial is None:
            return live, await self.classify(live, images)
        return await trial.answer(live, images, self.classify, self._batcher)

    async def classify(
        self, live: LiveModel, images: Sequence[NamedBytes], batcher: Batcher | None = None
    ) -> np.ndarray:
        """Probabilities, float32 (n, k), in the order of the images.

        Raises RequestError naming the first image that cannot be decoded (422), or where they are too large together
        (413).
        """
        return (await self.look(live, images, batcher))[1]

    def watch(self, live: LiveModel, images: Sequence[NamedBytes]) -> None:
        """Compare the version on trial, where there is one, on a request that ``live`` has answered."""
        if self._trial is not None:
            self._trial.watch(live, images)

    async def look(
        self, live: LiveModel, images: Sequence[NamedBytes], batcher: Batcher | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The prepared images, uint8 (n, channels, size, size), and what :meth:`classify` says of them."""
        arrays = await self.prepare(live, images)
        batcher = batcher or self._batcher
        rows = await batcher.submit(live.compute, arrays, live.settings.max_batch_size, live.quick)
        if batcher is self._batcher:  # a version on trial, which has its own, is judged by its trial
            self.monitor.note(live.version, live.bundle, arrays, rows)
            if self.capture is not None and self.capture.version == live.version:
                self.capture.note([data for _, data in images], arrays, rows, live.certainty)
        return arrays, rows

    async def prepare(self, live: LiveModel, images: Sequence[NamedBytes]) -> np.ndarray:
        """The images as the network reads them, uint8 (n, channels, size, size). Raises RequestError."""
        return await self._decoder.decode(live.decode, images, live.settings.max_pixels)

    async def compute(self, live: LiveModel, arrays: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, k), of prepared images that are no part of what came in."""
        return await self._batcher.submit(live.compute, arrays, live.settings.max_batch_size, live.quick)

    async def doubt(self, live: LiveModel, arrays: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
        """For each image which labels it may have and whether it looks like none; see :func:`doubts`."""
        return await asyncio.get_running_loop().run_in_executor(None, doubts, live.bundle, arrays, rows)

    async def health(self, live: LiveModel) -> dict[str, Any]:
        """Whether the model is still right on what comes in, as :meth:`Monitor.judge` says it."""

        def judged() -> dict[str, Any]:
            self.monitor.settle()  # with the last request's images
            return self.monitor.judge(live.version, live.bundle)

        found = await asyncio.get_running_loop().run_in_executor(None, judged)
        return {"model": live.name, "version": live.version, **found}

    def close(self) -> None:
        """Let go of the threads."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
        self._batcher.close()
        self._decoder.close()
        self.monitor.close()
        if self.capture is not None:
            self.capture.close()

    async def _capture_as(self, settings: ServingSettings) -> None:
        kept = self.capture
        wanted = (Path(settings.capture), settings.capture_limit, self.live.version) if settings.capture else None
        if wanted != (None if kept is None else (kept.folder, kept.limit, kept.version)):
            self.capture = None
            if kept is not None:  # it has megabytes to write, perhaps, while requests go on
                await asyncio.get_running_loop().run_in_executor(None, kept.close)
            if wanted is not None:
                from raytl.serving.capture import Capture  # which brings pyarrow

                self.capture = Capture(*wanted)


def predictions(bundle: Predictor, probabilities: np.ndarray, top: int | None) -> list[dict[str, Any]]:
    """Per row of (n, k): the predicted label, its probability, and all by label.

    top: list only so many, the predicted one first and then the most probable.
    """
    rows = probabilities.tolist()
    if len(rows) == 1 and bundle.manifest.threshold is None:
        # As numpy does, which would let go of the interpreter's lock meanwhile, and wait to have it again.
        chosen = [rows[0].index(max(rows[0]))]
    else:
        chosen = bundle.decide(probabilities).tolist()
    return [_prediction(bundle.labels, row, best, top) for row, best in zip(rows, chosen, strict=True)]


def doubts(bundle: Predictor, arrays: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
    """Of each image: ``labels``, which hold the true one in 90 % of cases, and ``none_of_these``, whether it looks so.

    arrays: uint8 (n, channels, s, s); rows: (n, k). Both are None where the bundle has nothing to tell it by.
    """
    known = bundle.yardstick
    if known is None:
        return [{"labels": None, "none_of_these": None}] * len(rows)
    chosen = bundle.decide(rows)
    told = known.asked(rows, chosen, thumbnails(arrays), image_statistics(arrays))
    unlike = known.unlike(told).tolist() if np.isfinite(known.refusal_threshold) else [None] * len(rows)
    return [
        {"labels": [label for label, taken in zip(bundle.labels, held, strict=True) if taken], "none_of_these": strange}
        for held, strange in zip(known.sets(rows, chosen), unlike, strict=True)
    ]


def _prediction(labels: Sequence[str], values: list[float], best: int, top: int | None) -> dict[str, Any]:
    if top is None:
        listed = dict(zip(labels, values, strict=True))
    else:
        order = [best, *(i for i in np.argsort(-np.array(values), kind="stable").tolist() if i != best)]
        listed = {labels[i]: values[i] for i in order[:top]}
    return {"label": labels[best], "confidence": values[best], "probabilities": listed}
