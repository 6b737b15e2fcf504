"""Makes ``schemas.json`` of KubeRay's resource definitions: version v1 only, descriptions left out, equal parts once.

    python make_schemas.py KUBERAY > schemas.json

KUBERAY: a checkout of https://github.com/ray-project/kuberay, of which v1.7.0 (Apache-2.0) was taken. Unknown keys,
which Kubernetes drops without a word, are errors here.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

KINDS = ("raycluster", "rayjob", "rayservice")
KEPT = {
    "type",
    "properties",
    "items",
    "required",
    "additionalProperties",
    "enum",
    "anyOf",
    "pattern",
    "minimum",
    "maximum",
}
SHARED = 300  # characters from which on an equal part stands once


def plain(schema: Any) -> Any:
    """The part of a schema that says what is valid."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key in KEPT}
    if "properties" in kept:
        kept["properties"] = {name: plain(value) for name, value in sorted(kept["properties"].items())}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = plain(kept[key])
    if "anyOf" in kept:
        kept["anyOf"] = [plain(part) for part in kept["anyOf"]]
    return kept


def shared(schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas with references to the parts that occur more than once."""
    counts: Counter[str] = Counter()

    def count(schema: Any) -> None:
        if isinstance(schema, dict):
            text = json.dumps(schema, sort_keys=True)
            counts[text] += 1
            if counts[text] == 1:
                for value in schema.values():
                    count(value)
        elif isinstance(schema, list):
            for value in schema:
                count(value)

    for schema in schemas.values():
        count(schema)
    names: dict[str, str] = {}
    definitions: dict[str, Any] = {}

    def refer(schema: Any, top: bool = False) -> Any:
        if isinstance(schema, list):
            return [refer(value) for value in schema]
        if not isinstance(schema, dict):
            return schema
        text = json.dumps(schema, sort_keys=True)
        if not top and isinstance(schema.get("type"), str) and counts[text] > 1 and len(text) > SHARED:
            if text not in names:
                names[text] = f"d{len(names)}"
                definitions[names[text]] = {key: refer(value) for key, value in schema.items()}
            return {"$ref": f"#/$defs/{names[text]}"}
        return {key: refer(value) for key, value in schema.items()}

    made = {kind: refer(schema, top=True) for kind, schema in schemas.items()}
    return {"kinds": made, "$defs": definitions}


def main(checkout: Path) -> None:
    """Print the schemas of a checkout."""
    schemas = {}
    for kind in KINDS:
        path = checkout / "ray-operator" / "config" / "crd" / "bases" / f"ray.io_{kind}s.yaml"
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        (version,) = [one for one in document["spec"]["versions"] if one["name"] == "v1"]
        schema = plain(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        schemas[document["spec"]["names"]["kind"]] = schema
    json.dump(shared(schemas), sys.stdout, separators=(",", ":"), sort_keys=True)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
