"""``raytl demo``: the whole way once, ending with the test images sent through HTTP."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import ray

from raytl import api
from raytl.cli.output import Output
from raytl.cli.progress import Progress
from raytl.cli.results import show_run
from raytl.cli.running import listening
from raytl.search.lanes.cluster import quiet_environment
from raytl.search.lanes.cluster import start as start_ray
from raytl.search.space.definition import load_space
from raytl.serving.ports import free_port
from raytl.tasks import LabelledImages, demo_task

SPACE = "demo"
SEARCH_BUDGET_S = 210.0
"""Of the five minutes that the demo may take on two cores; the rest is for start, deployment and test."""
CONNECTIONS = 8


def run_demo(
    output: Output, *, seed: int, storage: str | None, name: str | None, port: int, lanes: int | None, verbose: bool
) -> None:
    """Search, deploy, classify through HTTP, take down."""
    started = time.monotonic()
    quiet_environment(verbose)
    task = demo_task(seed)
    # The endpoint's questions are the test images; the search gets them sealed and opens them once, as for any task.
    images = demo_task(seed).test
    assert images is not None
    questions = images.open()
    space = load_space(SPACE)
    start_ray(lanes or 1, verbose=verbose)
    try:
        with listening(output, space.settings.trials, SEARCH_BUDGET_S) as progress:
            run = api.search(
                task, space, trials=space.settings.trials, time_budget_s=SEARCH_BUDGET_S, lanes=lanes, seed=seed,
                name=name, storage=storage, verbose=verbose, listeners=[progress],
                warm_start=False,  # each demo shows a search from nothing
            )  # fmt: skip
            endpoint = _through_http(run, questions, port, progress)
    finally:
        ray.shutdown()
    show_run(output, run)
    summary = run.summary()
    output.say(
        f"through the endpoint at {endpoint['url']}: {endpoint['images']} test images, "
        f"accuracy {endpoint['accuracy']:.3f} in {endpoint['seconds']:.1f} s; it is down again"
    )
    for label, baseline in summary["baselines"].items():
        if baseline["test_metric"]:
            output.say(f"  {label}: {baseline['test_metric']['value']:.3f}")
    output.say(f"the whole way took {time.monotonic() - started:.0f} s")
    output.document({**summary, "endpoint": endpoint, "total_seconds": time.monotonic() - started})


def _through_http(run: api.Run, questions: LabelledImages, port: int, progress: Progress) -> dict[str, Any]:
    """Deploy the run's model, send it every test image as a PNG, take it down."""
    progress.on_phase("deploy", "")
    endpoint = api.deploy(run, name="raytl-demo", port=port or free_port())
    try:
        progress.on_phase("classify", "")
        started = time.monotonic()
        with (
            httpx.Client(base_url=endpoint.url, timeout=60, trust_env=False) as client,
            ThreadPoolExecutor(CONNECTIONS) as pool,
        ):

            def ask(index: int) -> str:
                body = io.BytesIO()
                questions.items[index].open().save(body, "PNG")
                answer = client.post("/v1/predict", content=body.getvalue(), headers={"Content-Type": "image/png"})
                answer.raise_for_status()
                label: str = answer.json()["predictions"][0]["label"]
                return label

            answers = list(pool.map(ask, range(len(questions))))
        right = sum(answer == questions.classes[label] for answer, label in zip(answers, questions.labels, strict=True))
        seconds = time.monotonic() - started
        return {"url": endpoint.url, "images": len(answers), "accuracy": right / len(answers), "seconds": seconds}
    finally:
        api.undeploy("raytl-demo")
