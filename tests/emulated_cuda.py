"""A CUDA device for machines without one: tensors that say they are on ``cuda:0`` and are on the CPU.

All that is called on them passes through here, so that what a GPU would refuse is refused (tensors of two devices in
one operation, NumPy on what is not on the host) and what a GPU would make the host wait for is recorded. Kernels, their
speed and their rounding are the CPU's: nothing is learned of those here.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import raytl
from raytl.core.gpus import usable_gpus

PACKAGE = str(Path(raytl.__file__).parent)
DEVICE = torch.device("cuda", 0)
MEMORY_BYTES = 2**30

ANSWERS = frozenset({
    "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__contains__", "equal", "allclose",
})  # fmt: skip
"""Values that come back to the host."""
COUNTS = frozenset({"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"})
"""Shapes that depend on values, which the host has to know."""
UPLOADS = frozenset({"tensor", "as_tensor", "new_tensor"})
INDEXING = frozenset({"__getitem__", "__setitem__"})
OF_ANY_DEVICE = frozenset({"copy_", "__set__", "__repr__", "type_as", "_has_compatible_shallow_copy_type"})


class DeviceTensor(Tensor):
    """A tensor on the emulated device."""


class EmulatedCuda(TorchFunctionMode):
    """While it is entered, ``cuda:0`` can be used.

    waits: where the host had to wait for it, in order. limits: shares of its memory that a process was kept to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.limits: list[float] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        uses = any(isinstance(tensor, DeviceTensor) for tensor in tensors)
        if func in (Tensor.to, Tensor.cpu):
            return self._to(*args, **kwargs) if func is Tensor.to else self._to(*args, "cpu", **kwargs)
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return DEVICE if uses else func(*args)
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = "cpu"
        gives = uses if asked is None else torch.device(asked).type == "cuda"
        if uses:
            self._check(name, tensors, args, kwargs)
        if gives and name in UPLOADS:
            self._wait(name)
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs)
        return tree_map(_on_device, out) if gives else out

    def _check(self, name: str, tensors: list[Tensor], args: Any, kwargs: dict[str, Any]) -> None:
        """Refuse what a GPU would refuse; note what it would have to be waited for."""
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        # A number may lie on the host, and so may what a tensor on the device is indexed with.
        indexed = name in INDEXING and isinstance(args[0], DeviceTensor)
        elsewhere = any(not isinstance(tensor, DeviceTensor) and tensor.ndim > 0 for tensor in tensors)
        if elsewhere and not indexed and name not in OF_ANY_DEVICE:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
        if name in ANSWERS or name in COUNTS:
            self._wait(name)
        if indexed:
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            if any(index.dtype == torch.bool or not isinstance(index, DeviceTensor) for index in indices):
                self._wait(name)
        if name == "copy_":
            self._transfer(args[1], to_device=isinstance(args[0], DeviceTensor), unhurried=_unhurried(args, kwargs))

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A copy on the other device where one is named, else a conversion."""
        here = isinstance(tensor, DeviceTensor)
        if "device" in kwargs:
            args = (kwargs.pop("device"), *args)
        elif args and isinstance(args[0], Tensor):
            args = ("cuda" if isinstance(args[0], DeviceTensor) else "cpu", args[0].dtype, *args[1:])
        goes = here
        if args and (args[0] is None or isinstance(args[0], str | torch.device)):
            goes = here if args[0] is None else torch.device(args[0]).type == "cuda"
            args = ("cpu", *args[1:])
        with torch._C.DisableTorchFunctionSubclass():
            converted = Tensor.to(tensor, *args, **kwargs)
            if goes == here:
                return _on_device(converted) if goes else converted
            self._transfer(tensor, to_device=goes, unhurried=bool(kwargs.get("non_blocking", True in args)))
            moved = converted.clone()
            return moved.as_subclass(DeviceTensor) if goes else moved.as_subclass(Tensor)

    def _transfer(self, source: Tensor, *, to_device: bool, unhurried: bool) -> None:
        """Between the devices. The host goes on at once only if it may, and if what is copied cannot be moved away."""
        crosses = isinstance(source, DeviceTensor) != to_device
        if crosses and not (unhurried and getattr(source, "pinned", False)):
            self._wait("a copy to the device" if to_device else "a copy to the host")

    def _wait(self, name: str) -> None:
        own = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
        place = f"{own[-1].filename.rpartition('/')[2]}:{own[-1].lineno} {own[-1].name}" if own else "a test"
        self.waits.append(f"{name} at {place}")


@contextmanager
def emulated_cuda() -> Iterator[EmulatedCuda]:
    """A machine with one GPU, emulated, for as long as the block lasts."""
    mode, autocast = EmulatedCuda(), torch.autocast
    replaced = [
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "device_count", lambda: 1),
        mock.patch.object(torch.cuda, "get_device_name", lambda index: "an emulated GPU"),
        mock.patch.object(torch.cuda, "get_device_capability", lambda index: (9, 0)),
        mock.patch.object(torch.cuda, "is_bf16_supported", lambda **kwargs: True),
        mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
        mock.patch.object(torch.cuda.memory, "_lazy_init", lambda: None),
        mock.patch.object(torch.cuda, "cudart", _Runtime),
        mock.patch.object(torch._C, "_cuda_getDevice", lambda: 0, create=True),
        mock.patch.object(
            torch._C, "_cuda_setMemoryFraction", lambda share, device: mode.limits.append(share), create=True
        ),
        mock.patch.object(torch.cuda, "synchronize", lambda device=None: mode.waits.append("synchronize")),
        mock.patch.object(torch, "autocast", lambda kind, *args, **kwargs: autocast("cpu", *args, **kwargs)),
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(Tensor, "pin_memory", _pinned),
    ]
    usable_gpus.cache_clear()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a Parameter can't become a DeviceTensor
    try:
        with ExitStack() as stack:
            for patch in replaced:
                stack.enter_context(patch)
            yield stack.enter_context(mode)
    finally:
        usable_gpus.cache_clear()
        torch.__future__.set_overwrite_module_params_on_conversion(False)


class _Runtime:
    """What is asked of CUDA's runtime library."""

    def cudaMemGetInfo(self, device: int) -> tuple[int, int]:  # noqa: N802
        return MEMORY_BYTES, MEMORY_BYTES


class _Generator(torch.Generator):
    """Says that it is on the device that it was made for; draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made: _Generator = super().__new__(cls)
        made.place = DEVICE if torch.device(device).type == "cuda" else torch.device("cpu")
        return made

    @property
    def device(self) -> torch.device:
        return self.place


def _on_device(leaf: Any) -> Any:
    return leaf.as_subclass(DeviceTensor) if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor) else leaf


def _pinned(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def _unhurried(args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
