"""Who is let in, and where the token lies; test_through_serve.py changes it through Serve."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from raytl.core.errors import UserError
from raytl.serving import tokens
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings


@pytest.fixture(scope="module")
def client(bundles):
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]), token_sha256=tokens.hashed("secret"))
    asyncio.run(service.apply(settings))
    with TestClient(create_http(service), "http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/v1/model", "/openapi.json", "/nowhere", "/healthz/", "/static/x", "/v2", "/v1/predict"]
)
@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Basic secret", "secret", "Bearer", "Bearer secret1", "Bearer é"]
)
def test_nobody_gets_in_without_it(client, path, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for method in ("GET", "POST", "HEAD"):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in client.get(path).json()["error"]


@pytest.mark.parametrize("given", ["Bearer secret", "bearer secret", "Bearer  secret"])
def test_with_it_everything_is_there(client, png, given):
    headers = {"Authorization": given}
    assert client.post("/v1/predict", content=png(0), headers=headers).status_code == 200
    assert client.get("/v1/model", headers=headers).json()["model"] == "first"
    assert client.get("/healthz", headers=headers).json()["model"] == "first"


def test_load_balancers_learn_that_it_is_ready_and_no_more(client):
    for path in ("/healthz", "/readyz"):
        assert (client.get(path).status_code, client.get(path).json()) == (200, {"status": "ok"})
        assert client.head(path).status_code == 200


class TestFile:
    def test_is_for_its_user_alone_and_kept_while_it_fits(self, monkeypatch, tmp_path):
        monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
        assert tokens.read_token("a/../b") is None and tokens.headers("a/../b") == {}
        first = tokens.token_hash("a/../b", "")
        file = tokens.token_file("a/../b")
        assert file.parent == tmp_path / "serving" / "tokens"
        assert oct(file.stat().st_mode & 0o777) == "0o600" and oct(file.parent.stat().st_mode & 0o777) == "0o700"
        token = tokens.read_token("a/../b")
        assert token is not None and len(token) >= 43 and tokens.hashed(token) == first
        assert tokens.headers("a/../b") == {"Authorization": f"Bearer {token}"}
        assert tokens.token_hash("a/../b", first) == first
        # Another one's endpoint, or a lost file: a token that is not known here is no use to anybody here.
        assert tokens.token_hash("a/../b", tokens.hashed("lost")) != first

    def test_a_place_that_cannot_be_written_is_a_sentence(self, monkeypatch, tmp_path):
        monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
        (tmp_path / "serving").write_text("a file")
        with pytest.raises(UserError, match="the token cannot be written"):
            tokens.write_token("raytl")


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.0.2.7", False), ("example.org", False)],
)  # fmt: skip
def test_which_hosts_only_this_machine_reaches(host, alone):
    assert tokens.is_loopback(host) is alone
