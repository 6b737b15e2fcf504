"""Whatever the OpenAPI document lets somebody send, and much that it does not: never an answer of 5xx."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings

pytestmark = pytest.mark.slow  # about a minute
NAME = "raytl"
EXAMPLES = 220  # of every route, in both modes; benchmarks/serving_fuzzed.py makes up requests for ten minutes
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def api(bundles):
    service = Service()
    # By which name Schemathesis asks an application in its own process.
    limits = {"max_images": 4, "max_body_bytes": 100_000, "hosts": ["testserver"]}
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), **limits)))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_http(service, NAME))
    service.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_server_error_and_answers_as_documented(api, mode):
    operations = [found.ok() for found in api.get_all_operations()]
    assert {"/v1/predict", "/v1/models/{model_name}/predict", "/healthz"} <= {one.path for one in operations}
    for operation in operations:

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def check(case, known):
            if known:
                named = case.path_parameters.keys() & {"model_name", "name"}
                case.path_parameters.update(dict.fromkeys(named, NAME))
            case.call_and_validate(checks=CHECKS)

        try:
            check()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing can be wrong in a request without parameters
