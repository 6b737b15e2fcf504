"""Who is let in where no token is asked for: no page of another server; test_tokens.py has the rest."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from raytl.core.errors import UserError
from raytl.serving import tokens
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings

OWN = [
    "127.0.0.1:8000",
    "localhost:8000",
    "LOCALHOST",
    "localhost.",
    "[::1]:8000",
    "[::1]",
    "my.localhost",
    "10.0.0.7:80",
]
FOREIGN = ["rebound.example:8000", "127.0.0.1.rebound.example", "localhost.rebound.example", "[x]:8000", "lo calhost"]


@pytest.fixture(scope="module")
def open_to(bundles):
    """A client of an endpoint without a token that goes by these names too."""

    def client(*hosts: str, **settings: str) -> TestClient:
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), hosts=hosts, **settings)))
        return TestClient(create_http(service), raise_server_exceptions=False)

    service = Service()
    yield client
    service.close()


class TestNames:
    @pytest.mark.parametrize("host", OWN)
    def test_addresses_and_loopback_are_answered_to(self, open_to, png, host):
        client = open_to()
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200
        assert client.post("/v1/predict", content=png(0), headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", FOREIGN)
    @pytest.mark.parametrize("path", ["/v1/model", "/openapi.json", "/v2", "/v1/models", "/nowhere"])
    def test_a_name_that_others_can_give_this_machine_is_not(self, open_to, host, path):
        answer = open_to().get(path, headers={"Host": host})
        assert answer.status_code == 421 and answer.headers["content-type"] == "application/problem+json"
        assert "--allow-host" in answer.json()["error"] and "\n" not in answer.json()["error"]
        assert open_to().post("/v1/predict", headers={"Host": host}).status_code == 421

    def test_load_balancers_learn_by_any_name_that_it_lives_and_no_more(self, open_to):
        for path in ("/healthz", "/readyz"):
            assert open_to().get(path, headers={"Host": FOREIGN[0]}).json() == {"status": "ok"}
        page = open_to().get("/", headers={"Host": FOREIGN[0]})
        assert page.status_code == 200 and "daisy" not in page.text

    def test_names_that_were_allowed_are(self, open_to):
        client = open_to("Models.Example")
        assert client.get("/v1/model", headers={"Host": "models.example:80"}).status_code == 200
        assert client.get("/v1/model", headers={"Host": "other.models.example"}).status_code == 421
        assert open_to("*").get("/v1/model", headers={"Host": FOREIGN[0]}).status_code == 200

    def test_with_a_token_every_name_is(self, open_to):
        client = open_to(token_sha256=tokens.hashed("secret"))
        told = {"Host": FOREIGN[0], "Origin": "https://elsewhere.example", "Authorization": "Bearer secret"}
        assert client.get("/v1/model", headers=told).status_code == 200


class TestPagesOfOthers:
    @pytest.mark.parametrize(
        "told",
        [
            {"Origin": "https://elsewhere.example"},
            {"Origin": "null"},
            {"Origin": "http://["},
            {"Origin": "http://127.0.0.1:3000"},  # another server of this machine
            {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_send_nothing_here(self, open_to, png, told):
        answer = open_to().post("/v1/predict", content=png(0), headers={"Host": "127.0.0.1:8000", **told})
        assert answer.status_code == 403 and "--allow-host" in answer.json()["error"]

    @pytest.mark.parametrize(
        "told",
        [
            {},
            {"Origin": "http://127.0.0.1:8000"},
            {"Origin": "https://models.example", "Sec-Fetch-Site": "same-origin"},  # a server between changed the host
        ],
    )
    def test_its_own_page_and_programs_do(self, open_to, png, told):
        answer = open_to().post("/v1/predict", content=png(0), headers={"Host": "127.0.0.1:8000", **told})
        assert answer.status_code == 200

    def test_may_be_allowed_and_linked_to(self, open_to, png):
        told = {"Host": "127.0.0.1:8000", "Origin": "https://models.example", "Sec-Fetch-Site": "cross-site"}
        assert open_to("models.example").post("/v1/predict", content=png(0), headers=told).status_code == 200
        assert open_to().get("/v1/model", headers=told).status_code == 200  # its answer is read by no page


def test_hosts_are_a_list():
    with pytest.raises(UserError, match=r"'hosts' is 'models\.example'; give a list of names"):
        ServingSettings.parse({"bundle": "b", "hosts": "models.example"})
