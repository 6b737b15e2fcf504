"""Several models on one endpoint, as one of them answers for itself; test_deploy.py goes through Serve."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest
from starlette.testclient import TestClient

from raytl.core.errors import UserError
from raytl.serving.http import create_http
from raytl.serving.named import entry, remembered, route_for
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings
from raytl.serving.tokens import hashed


@pytest.fixture(scope="module")
def service(bundles):
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]))))
    yield service
    service.close()


@pytest.fixture(scope="module")
def guarded(bundles):
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), token_sha256=hashed("secret"))))
    yield service
    service.close()


@pytest.mark.parametrize("root", ["", "/v1/models/cells"])
@pytest.mark.parametrize("path", ["", "/health", "/predict"])
def test_what_is_at_its_name_asks_for_the_token_as_well(guarded, root, path):
    with TestClient(create_http(guarded, "cells"), "http://127.0.0.1", root_path=root) as client:
        assert client.get(f"/v1/models/cells{path}").status_code == 401
        found = client.get(f"/v1/models/cells{path}", headers={"Authorization": "Bearer secret"})
        assert found.status_code == (405 if path == "/predict" else 200)


def test_the_page_of_a_named_one_is_below_its_name(service):
    with TestClient(create_http(service, "cells"), "http://127.0.0.1", root_path="/v1/models/cells") as client:
        page = client.get("/v1/models/cells/")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")


class TestRoute:
    def test_the_first_is_the_default_and_others_are_at_their_names(self):
        assert route_for("cells", None, {}) == "/"
        assert route_for("letters", None, {"cells": "/"}) == "/v1/models/letters"
        assert route_for("cells", None, {"letters": "/v1/models/letters"}) == "/"

    def test_one_that_is_there_stays_where_it_is(self):
        taken = {"cells": "/", "letters": "/v1/models/letters", "old": "/old"}
        assert [route_for(name, None, taken) for name in taken] == list(taken.values())
        assert route_for("old", "/new", taken) == "/new"

    def test_a_route_that_is_taken(self):
        with pytest.raises(UserError, match="'cells' is already served under /; give 'letters' another route"):
            route_for("letters", "/", {"cells": "/"})

    @pytest.mark.parametrize("name", ["a/b", "..", "ä", "a b", "", "%41"])
    def test_a_name_that_is_no_address(self, name):
        with pytest.raises(UserError, match="cannot stand in an address"):
            route_for(name, None, {"cells": "/"})


@pytest.mark.parametrize("root", ["", "/v1/models/cells"])
def test_answers_under_its_name_wherever_it_is_mounted(service, png, root):
    with TestClient(create_http(service, "cells"), "http://127.0.0.1", root_path=root) as client:
        answer = client.post("/v1/models/cells/predict", content=png(1), params={"top": 2})
        assert answer.status_code == 200 and len(answer.json()["predictions"][0]["probabilities"]) == 2
        assert answer.json() == client.post(f"{root}/v1/predict?top=2", content=png(1)).json()
        assert client.get("/v1/models/cells").json()["labels"] == list(service.live.labels)
        assert client.get("/v1/models/cells/health").json()["model"] == "first"
        assert client.get(f"{root}/healthz").json()["model"] == "first"


def test_another_name_is_a_problem_document_that_tells_the_known_ones(service, png):
    async def directory():
        return [entry("cells", "/", {"model": "first"}, "RUNNING"), entry("letters", "/l", {}, "DEPLOYING")]

    with TestClient(create_http(service, "cells", directory), "http://127.0.0.1") as client:
        for answer in (
            client.post("/v1/models/other/predict", content=png(0)),
            client.get("/v1/models/other"),
            client.get("/v1/models/..%2f..%2fetc%2fpasswd"),
        ):
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        assert (
            "no model 'other' on this endpoint; it has cells, letters" in client.get("/v1/models/other").json()["error"]
        )
        assert [(m["name"], m["path"], m["default"]) for m in client.get("/v1/models").json()["models"]] == [
            ("cells", "/v1/predict", True),
            ("letters", "/l/v1/predict", False),
        ]


def test_the_name_of_another_model_is_told_where_that_answers(service, png):
    async def directory():
        return [
            entry("cells", "/old", {}, "RUNNING"),
            entry("letters", "/v1/models/letters", {}, "DEPLOYING"),
            entry("first one", "/", {}, "RUNNING"),
        ]

    app = create_http(service, "cells", directory)
    with TestClient(app, "http://127.0.0.1", root_path="/old") as client:
        assert client.get("/old/v1/models/cells").status_code == 200
        assert client.post("/old/v1/models/letters/predict", content=png(0)).headers["retry-after"] == "1"
        for name, status, words in (
            ("letters", 503, "model 'letters' does not answer yet"),  # were it there, the proxy would have led there
            ("first one", 404, "it answers below '/'"),
            ("nobody", 404, "there is no model 'nobody' on this endpoint; it has cells, first one, letters"),
        ):
            answer = client.get(f"/old/v1/models/{name}")
            assert answer.status_code == status and words in answer.json()["error"]
        answer = client.get("/old/v2/models/letters")
        assert answer.status_code == 404 and "it answers below '/v1/models/letters'" in answer.json()["error"]


@pytest.mark.parametrize("name", ["cells", "first"])  # that of the bundle as well
def test_clients_of_kserve_find_it_under_its_name(service, png, name):
    with TestClient(create_http(service, "cells"), "http://127.0.0.1") as client:
        assert client.get(f"/v2/models/{name}").json()["name"] == name
        assert client.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
        body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64encode(png(0)).decode()]}]}
        assert client.post(f"/v2/models/{name}/infer", json=body).json()["model_name"] == name


def test_alone_it_lists_itself(service):
    with TestClient(create_http(service, "cells"), "http://127.0.0.1") as client:
        (one,) = client.get("/v1/models").json()["models"]
    assert (one["name"], one["model"], one["version"]) == ("cells", "first", service.live.version)


def test_what_is_served_is_not_asked_for_with_every_request():
    asked = []

    def ask():
        asked.append(1)
        return [entry("cells", "/", {}, "RUNNING")]

    async def often():
        directory = remembered(ask)
        return await asyncio.gather(*(directory() for _ in range(50)))

    assert len({one[0]["name"] for one in asyncio.run(often())}) == 1 and len(asked) == 1
