"""The page goes on with a run where its search was: here, or as a job of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from raytl.ui import make_app
from raytl.ui.going_on import ADDRESS, words_to_go_on


@pytest.fixture
def page(tmp_path: Path, example: Any) -> TestClient:
    """Of a run that was a job, fetched to this machine."""
    settings = example.SETTINGS | {"job": True, "given": {"target": "photos"}}
    example.write_example(tmp_path, "flowers", trials=4, settings=settings)
    return TestClient(make_app(str(tmp_path)), "http://localhost", headers={"X-Raytl": "test"})


def test_a_job_is_not_gone_on_with_here(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    answer = page.post("/api/runs/flowers/go-on", json={"trials": 10})
    assert answer.status_code == 409
    said = answer.json()["error"]
    assert "raytl submit --resume flowers --trials +10 --address http://HEAD:8265" in said
    assert "raytl fetch flowers" in said
    answer = page.post("/api/runs/flowers/try", json={"settings": ["cut=0"]})
    assert answer.status_code == 409
    assert "raytl runs try" in answer.json()["error"]


def test_it_is_sent_to_the_cluster_where_that_is_known_and_keeps_its_runs_at_a_uri(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ADDRESS, "http://head:8265")
    wanted = ["--time-budget", "+5m"]
    sent = words_to_go_on("flowers", {"job": True}, "s3://bucket/runs", wanted)
    assert sent == ["submit", "--resume", "flowers", *wanted, "--detach"]
    assert words_to_go_on("flowers", {}, "s3://bucket/runs", wanted) == ["search", "--resume", "flowers", *wanted]
