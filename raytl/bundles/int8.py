"""A network's ONNX file with weights and activations of 8 bits: a quarter of the size.

Two ways, of which the one is taken that stays closer to the original on the images that it is calibrated with: static
quantisation (of convolutions and products, ranges of activations taken from images) and dynamic (of products alone,
ranges taken from each batch), which transformers often need. The last product stays as it is: it is small, and what it
computes are the logits. Seven bits of each weight's range are used, because with all eight processors without VNNI
saturate and answer otherwise than the machine that the file was measured on (onnxruntime's documentation, "Quantize
ONNX models"). Some networks, those with depthwise convolutions first, need all eight: they get them where the bundle
has reference predictions, by which a machine that answers otherwise is told before it serves.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raytl.bundles.onnx_model import INPUT, OUTPUT, open_session
from raytl.core.errors import UserError

_WORTH_IT = 0.7
"""Of the file's size at most: where there is less to gain, all that 8 bits bring is another answer."""
_MUCH_CLOSER = 2
"""How many times closer to the original eight bits must be to be taken where seven do."""
_PRODUCTS = ["MatMul", "Gemm"]
# Between two quantised convolutions these need not go back to 32 bits.
_PASSING = ["Add", "Concat", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"]
_BATCH = 16


def quantised(original: Path, images: np.ndarray, *, portable: bool = True) -> tuple[bytes, str]:
    """The file of 8 bits, and how it was made: ``static`` or ``dynamic``.

    original: the ONNX file. images: prepared, uint8 (n, channels, size, size), such as the model will see; one or more.
    portable: only what computes the same on all processors. Raises UserError where that makes nothing smaller.
    """
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        with _quiet():
            quant_pre_process(str(original), str(ready), skip_symbolic_shape=True)
        expected = _answers(ready, images)
        found: list[tuple[float, bytes, str]] = []
        for name, bits in (("static", 7), ("dynamic", 7), ("static", 8))[: 2 if portable else 3]:
            made = Path(folder) / f"{name}{bits}.onnx"
            with _quiet():
                if name == "static":
                    _static(ready, made, images, bits)
                else:
                    _dynamic(ready, made)
            if made.stat().st_size <= _WORTH_IT * ready.stat().st_size:
                apart = float(np.abs(_answers(made, images) - expected).mean())
                found.append((apart * (_MUCH_CLOSER if bits == 8 else 1), made.read_bytes(), name))
    if not found:
        raise UserError(f"{original}: 8 bits make this model hardly smaller; serve {original.name}")
    _, data, name = min(found, key=lambda one: one[0])
    return data, name


def _static(ready: Path, made: Path, images: np.ndarray, bits: int) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        str(ready),
        str(made),
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", *_PRODUCTS, *_PASSING],
        nodes_to_exclude=_last_products(ready),
        per_channel=True,
        reduce_range=bits == 7,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _dynamic(ready: Path, made: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(ready),
        str(made),
        op_types_to_quantize=_PRODUCTS,
        nodes_to_exclude=_last_products(ready),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _last_products(path: Path) -> list[str]:
    """Those after which no other product comes: a head that reads all stages has several."""
    import onnx

    graph = onnx.load(path).graph
    makers = {output: node for node in graph.node for output in node.output}
    waiting, found, seen = [output.name for output in graph.output], [], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in _PRODUCTS:
            found += [node.name, f"{node.name}_MatMul"]  # what onnxruntime calls it after making a Gemm a MatMul
        else:
            waiting += node.input
    return found


class _Batches:
    """What onnxruntime reads the images from."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter(
            {INPUT: images[start : start + _BATCH]} for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _answers(path: Path, images: np.ndarray) -> np.ndarray:
    session = open_session(path, 1)
    run: Callable[[np.ndarray], Any] = lambda batch: session.run([OUTPUT], {INPUT: batch})[0]  # noqa: E731
    return np.concatenate([run(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])


class _quiet:  # noqa: N801
    """onnxruntime's tools recommend each other in the log."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self._before)
