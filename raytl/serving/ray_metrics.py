"""What Ray counts of what is served, for Prometheus, from all nodes: each tells its own at a port that Ray chooses."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

_OURS = ("ray_serve_", "ray_raytl_")  # of Ray's own workings there are hundreds more
_PATIENCE_S = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nobody reaches a node through a proxy


def ray_metrics() -> str:
    """Of Serve and its models, in Prometheus' text format. Nodes that do not answer are left out."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node.get("MetricsExportPort")]
    with ThreadPoolExecutor(max(1, min(16, len(nodes)))) as pool:
        return merged(page for page in pool.map(_page, nodes) if page is not None)


def merged(pages: Iterable[str]) -> str:
    """One page of several: what is said of a metric stands together in it, and once, as the first one says it."""
    heads: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        name = ""
        for line in page.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, name, *_ = line.split(maxsplit=3)
                if name.startswith(_OURS):
                    heads.setdefault(name, {}).setdefault(kind, line)
            elif line and name in heads:
                samples.setdefault(name, []).append(line)
    return "".join(f"{line}\n" for name, head in heads.items() for line in [*head.values(), *samples.get(name, [])])


def _page(node: dict[str, Any]) -> str | None:
    host = str(node["NodeManagerAddress"])
    place = f"[{host}]" if ":" in host else host
    try:
        with _DIRECT.open(f"http://{place}:{node['MetricsExportPort']}/metrics", timeout=_PATIENCE_S) as answer:
            return str(answer.read().decode())
    except OSError:
        return None
