"""Whatever the OpenAPI document lets somebody send, and much that it does not: never an answer of 5xx."""

from __future__ import annotations

import asyncio
from collections import Counter

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
EXAMPLES = 40  # of every route, in both modes; benchmarks/serving_fuzzed.py makes up requests for ten minutes
TENSORS = 220  # of a route that takes tensors: fewer of those made up from the document fit by chance
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def api(bundles):
    service = Service()
    # By which name Schemathesis asks an application in its own process.
    limits = {"max_images": 4, "max_body_bytes": 100_000, "hosts": ["testserver"]}
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), **limits)))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_http(service, NAME)), service.live.version
    service.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_server_error_and_answers_as_documented(api, mode):
    documented, version = api
    operations = [found.ok() for found in documented.get_all_operations()]
    assert {"/v1/predict", "/v1/models/{model_name}/predict", "/healthz"} <= {one.path for one in operations}
    here = {"model_name": NAME, "name": NAME, "version": version}
    answered: dict[str, Counter[int]] = {operation.path: Counter() for operation in operations}
    for operation in operations:
        examples = TENSORS if operation.path.endswith("/infer") else EXAMPLES

        @settings(max_examples=examples, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def check(case, known):
            if known:
                case.path_parameters.update({key: here[key] for key in case.path_parameters.keys() & here.keys()})
            answered[case.path][case.call_and_validate(checks=CHECKS).status_code] += 1

        try:
            check()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing can be wrong in a request without parameters
    if mode is GenerationMode.POSITIVE:
        inferring = [path for path in answered if path.endswith("/infer")]
        assert len(inferring) == 2
        assert all(answered[path][200] for path in inferring), "tensors made up from the document never fit"


def test_every_example_of_the_document_is_answered(api):
    documented, version = api
    answered = 0
    for operation in (found.ok() for found in documented.get_all_operations()):
        for examples in operation.get_strategies_from_examples():

            @settings(max_examples=1, database=None)
            @given(case=examples)
            def check(case):
                case.path_parameters.update({"name": NAME, "version": version})
                answer = case.call_and_validate(checks=CHECKS)
                assert answer.status_code == 200, answer.text

            check()
            answered += 1
    assert answered == 6  # three kinds of tensors, with a version and without
