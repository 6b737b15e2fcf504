"""What replicas keep for each other in Ray's own store of keys, and what is published of it as metrics.

No actor: a process more for each endpoint would cost more than all of this, and would have to be looked after. What a
replica leaves is 80 kB, replaced every few seconds, and gone with the cluster.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import numpy as np
from ray.experimental import internal_kv
from ray.util.metrics import Gauge

from raytl.judging.health import Health
from raytl.serving.health import STALE_S

_NAMESPACE = b"raytl-health"
_TIME = struct.Struct("<d")


class RayBoard:
    """The board of an application's replicas.

    application: its name. replica: what tells this replica from the others.
    """

    def __init__(self, application: str, replica: str) -> None:
        self._application = application
        self._replica = replica
        tags = ("application", "version")
        self._gauges = {
            name: Gauge(f"raytl_{name}", description=description, tag_keys=tags)
            for name, description in (
                ("estimated_accuracy", "Estimated share of right answers among the last images"),
                ("estimated_accuracy_low", "Low end of its 90 % interval"),
                ("estimated_accuracy_high", "High end of its 90 % interval"),
                ("unlike_share", "Share of the last images that look like none of the classes"),
                ("drift_alarm", "1 where the last images are of another kind than the labelled ones"),
                ("judged_images", "Images that the other figures are of"),
            )
        }
        self._shares = Gauge(
            "raytl_label_share", description="Share of a label among the last answers", tag_keys=(*tags, "label")
        )

    def put(self, version: str, window: bytes) -> None:
        """See :class:`raytl.serving.health.Board`."""
        internal_kv._internal_kv_put(
            self._prefix(version) + self._replica.encode(), _TIME.pack(time.time()) + window, namespace=_NAMESPACE
        )

    def others(self, version: str) -> list[bytes]:
        """See :class:`raytl.serving.health.Board`. What nobody has renewed for long is removed."""
        prefix, found = self._prefix(version), []
        for key in internal_kv._internal_kv_list(prefix, namespace=_NAMESPACE):
            if key == prefix + self._replica.encode():
                continue
            value = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
            if value is None:
                continue
            if time.time() - _TIME.unpack_from(value)[0] > STALE_S:
                internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
            else:
                found.append(value[_TIME.size :])
        return found

    def tell(self, version: str, health: Health, labels: Sequence[str]) -> None:
        """See :class:`raytl.serving.health.Board`. Every replica tells of all: take one of them, or their mean."""
        tags = {"application": self._application, "version": version}
        values = {
            "estimated_accuracy": health.accuracy.value,
            "estimated_accuracy_low": health.accuracy.low,
            "estimated_accuracy_high": health.accuracy.high,
            "unlike_share": np.nan if health.unlike is None else health.unlike,
            "drift_alarm": float(health.drift is not None and health.drift.alarm),
            "judged_images": float(health.images),
        }
        for name, value in values.items():
            self._gauges[name].set(float(value), tags)
        for label, share in zip(labels, health.shares, strict=True):
            self._shares.set(float(share), {**tags, "label": label})

    def _prefix(self, version: str) -> bytes:
        return f"{self._application}/{version}/".encode()
