"""Ray's fake nodes with memory, of which an autoscaler of a cloud tells and the fake one will not hear."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class GrowingNodes(FakeMultiNodeProvider):
    """Nodes that are processes of this machine, of which each has the memory that it finds."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict[str, float], labels: Any
    ) -> None:
        given = {name: value for name, value in resources.items() if name != "memory"}
        super()._create_node_with_resources_and_labels(node_config, tags, count, given, labels)
