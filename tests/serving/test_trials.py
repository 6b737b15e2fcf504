"""When a version on trial is promoted or taken back, and what becomes of its requests: without Serve."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow.parquet import read_table
from starlette.testclient import TestClient

from raytl.core.errors import UserError
from raytl.serving import service as serving
from raytl.serving.evidence import ERROR, Tally, confidence_sequence, figures, judge, least_telling
from raytl.serving.http import create_http
from raytl.serving.lineage import ended, succeeded, taken_back, tried, versions
from raytl.serving.problems import RequestError
from raytl.serving.service import _UNTOLD, Service
from raytl.serving.settings import KEPT_VERSIONS, Candidate, ServingSettings, bundle_version
from raytl.serving.trial_judge import Judge

RULES = Candidate(bundle="b", version="v2", model="newer", trial="t", promote_after=200)


class TestConfidenceSequence:
    @pytest.mark.parametrize("mean", [0.02, 0.1, 0.5])
    def test_misses_the_mean_at_any_time_in_no_more_than_its_error(self, mean):
        """Looked at after every one of 300 values, in 400 sequences: a fixed-time interval would miss in a third."""
        rng = np.random.default_rng(0)
        missed = 0
        for _ in range(400):
            sums = np.cumsum(rng.random(300) < mean)
            looks = [confidence_sequence(float(sums[n - 1]), n, 0.2) for n in (*range(1, 20), *range(20, 301, 10))]
            missed += any(not low <= mean <= high for low, high in looks)
        assert missed / 400 <= 0.2 + 2 * np.sqrt(0.2 * 0.8 / 400)

    def test_closes_in_and_never_leaves_the_mean_of_what_was_seen(self):
        widths = []
        for n in (1, 10, 100, 1000, 10_000):
            low, high = confidence_sequence(0.3 * n, n, 0.05)
            assert 0 <= low <= 0.3 <= high <= 1
            widths.append(high - low)
        assert widths == sorted(widths, reverse=True) and widths[-1] < 0.05
        assert confidence_sequence(0, 0, 0.05) == (0, 1)
        assert confidence_sequence(0, 50, 0.05)[0] == 0 and confidence_sequence(50, 50, 0.05)[1] == 1

    def test_inverts_the_mixture_likelihood_ratio(self):
        """At its bounds the beta-binomial mixture is 1/error times as likely as the bound: plainly, by quadrature."""
        low, high = confidence_sequence(7, 20, 0.05)
        grid = (np.arange(200_000) + 0.5) / 200_000
        prior = 1 / (np.pi * np.sqrt(grid * (1 - grid)))
        mixture = np.mean(grid**7 * (1 - grid) ** 13 * prior)
        for bound in (low, high):
            assert mixture / (bound**7 * (1 - bound) ** 13) == pytest.approx(20, rel=0.01)


def tally(compared: int, **changed: float) -> Tally:
    usual = {
        "compared": compared,
        "attempts": compared,
        "images": compared,
        "disagreed": 0.02 * compared,
        "confidence_live": 0.9 * compared,
        "confidence_candidate": 0.9 * compared,
    }
    return Tally(**{**usual, **changed})  # type: ignore[arg-type]


class TestJudgement:
    def test_promotes_as_good_a_one_when_enough_was_compared_and_not_before(self):
        assert judge(tally(199), RULES) is None
        promoted, why = judge(tally(400), RULES)
        assert promoted and "not worse" in why
        assert judge(tally(400), Candidate(bundle="b", version="v2")) is None  # nobody asked for it

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"disagreed": 60}, "another label in 30.0%"),
            ({"confidence_candidate": 60}, "less sure by 0.60"),
            ({"slower": 150}, "more than 1.5 times as long"),
            ({"errors": 12}, "failed 12 of 200 times"),
        ],
    )
    def test_takes_a_worse_one_back_before_enough_was_compared(self, changed, why):
        promoted, sentence = judge(tally(200, **changed), Candidate(bundle="b", version="v2", promote_after=1000))
        assert not promoted and why in sentence

    def test_what_always_fails_is_out_at_once(self):
        promoted, _ = judge(Tally(attempts=2, errors=2), RULES)
        assert not promoted

    def test_what_cannot_be_told_is_taken_back_in_the_end(self):
        near = {"disagreed": 0.1 * 1000}
        assert judge(tally(1000, **near), RULES) is None
        promoted, why = judge(tally(2000, disagreed=0.1 * 2000), RULES)
        assert not promoted and "cannot be told" in why

    def test_comparisons_that_come_to_nothing_leave_it_undecided_and_end_too(self):
        assert judge(Tally(lost=1999), RULES) is None
        promoted, why = judge(Tally(lost=2000), RULES)
        assert not promoted and "0 compared requests and 2000 that could not be compared it still cannot be told" in why

    @pytest.mark.parametrize(("asked", "limit"), [(3, 0.1), (50, 0.01), (500, 0.1)])
    def test_one_that_is_as_good_as_can_be_is_promoted_however_few_requests_were_asked_for(self, asked, limit):
        rules = replace(RULES, promote_after=asked, max_disagreement=limit)
        least = least_telling(limit)
        assert confidence_sequence(0, least, ERROR / 5)[1] <= limit < confidence_sequence(0, least - 1, ERROR / 5)[1]
        promoted, compared = None, asked
        while promoted is None:
            found = judge(tally(compared, disagreed=0, slower=0), rules)
            promoted, compared = (None if found is None else found[0]), compared + 1
        assert promoted and compared - 1 >= max(asked, least)

    def test_a_limit_that_nothing_could_keep_holds_nobody_on_trial_for_ever(self):
        rules = replace(RULES, max_disagreement=1e-9)
        assert least_telling(1e-9) == 0
        promoted, why = judge(tally(2000, disagreed=0), rules)
        assert not promoted and "cannot be told" in why

    def test_a_candidate_at_the_limit_is_seldom_promoted(self):
        """One that names another label in just more than is allowed: promoted with at most the stated error."""
        rng = np.random.default_rng(1)
        promoted = 0
        for _ in range(200):
            sums = np.cumsum(rng.random(1000) < RULES.max_disagreement + 0.001)
            for n in range(200, 1001, 10):
                verdict = judge(tally(n, disagreed=float(sums[n - 1])), RULES)
                if verdict is not None:
                    promoted += verdict[0]
                    break
        assert promoted / 200 <= ERROR

    def test_replicas_add_up(self):
        total = Tally()
        for _ in range(3):
            total.add(Tally.from_json(tally(10, errors=1).to_json()))
        assert (total.compared, total.attempts, total.errors) == (30, 30, 3)
        assert total.disagreed == pytest.approx(0.6)
        assert figures(total)["errors"]["value"] == pytest.approx(0.1)


class TestLineage:
    def test_five_versions_stay_at_hand_and_each_once(self):
        config: dict = {"max_images": 7}
        for number in range(9):
            config = succeeded(config, f"/{number}", f"v{number}", f"m{number}")
        assert [one["version"] for one in config["previous"]] == ["v7", "v6", "v5", "v4", "v3"]
        assert len(config["previous"]) == KEPT_VERSIONS and config["max_images"] == 7
        config = succeeded(config, "/5", "v5", "m5")
        assert [one["version"] for one in config["previous"]] == ["v8", "v7", "v6", "v4", "v3"]
        assert succeeded(config, "/5", "v5", "m5")["previous"] == config["previous"]

    def test_going_back_twice_leads_further_back_and_loses_nothing(self):
        config: dict = {}
        for number in range(3):
            config = succeeded(config, f"/{number}", f"v{number}", f"m{number}")
        once = taken_back(config)
        twice = taken_back(once)
        assert (once["version"], twice["version"]) == ("v1", "v0")
        assert versions(twice) == {"v0", "v1", "v2"}
        assert taken_back(twice, "v2")["bundle"] == "/2"
        with pytest.raises(UserError, match="exactly one earlier version; at hand are v2, v1"):
            taken_back(twice, "v")

    def test_a_trial_ends_either_way_and_is_told(self):
        config = tried(succeeded({}, "/1", "v1", "older"), RULES)
        assert versions(config) == {"v1", "v2"}
        assert ServingSettings.parse(config).candidate == RULES
        promoted, back = (ended(config, {"why": "x"}, promoted=which) for which in (True, False))
        assert (promoted["version"], promoted["previous"][0]["version"]) == ("v2", "v1")
        assert (back["version"], back.get("previous", [])) == ("v1", [])
        assert promoted["last_trial"]["promoted"] and not back["last_trial"]["promoted"]
        assert "candidate" not in promoted and "candidate" not in back


def test_what_a_newer_replica_counts_beside_is_passed_over():
    assert Tally.from_json(Tally(compared=3).to_json() | {"of_tomorrow": 1.0}) == Tally(compared=3)


def test_a_judge_that_hears_nothing_is_told_of_once(bundles, monkeypatch, caplog):
    heard = []

    async def tell(*told: object) -> None:
        heard.append(told)
        raise TypeError("somewhere\nunknown field")

    async def serve() -> None:
        service = Service(tell=tell)
        candidate = Candidate(bundle=str(bundles["second"]), version=bundle_version(bundles["second"]))
        await service.apply(ServingSettings(bundle=str(bundles["first"]), candidate=candidate))
        while len(heard) < 3 * _UNTOLD:
            await asyncio.sleep(0)
        service.close()

    monkeypatch.setattr(serving, "_TELL_S", 0.0)
    monkeypatch.setattr(serving, "_LOG", logging.getLogger("of the trial"))
    asyncio.run(serve())
    assert [record.getMessage() for record in caplog.records if record.name == "of the trial"] == [
        "the judge of the version on trial hears nothing (unknown field): promote it or roll it back"
    ]


def on_trial(bundles: dict[str, Path], *, capture: str = "", **rules: float) -> Service:
    service = Service()
    candidate = Candidate(bundle=str(bundles["second"]), version=bundle_version(bundles["second"]), **rules)  # type: ignore[arg-type]
    settings = ServingSettings(bundle=str(bundles["first"]), candidate=candidate, capture=capture)
    asyncio.run(service.apply(settings))
    return service


class TestInAReplica:
    def test_the_candidate_answers_no_more_than_its_share_at_any_time(self, bundles, png):
        service = on_trial(bundles, share=0.1)

        async def ask() -> list[str]:
            return [(await service.answer(service.live, [("x", png(0))]))[0].name for _ in range(300)]

        names = asyncio.run(ask())
        so_far = np.cumsum([name == "second" for name in names])
        assert (so_far <= 0.1 * np.arange(1, 301) + 1e-9).all()
        assert so_far[-1] >= 20
        service.close()

    def test_one_that_fails_is_answered_for_and_counted(self, bundles, png):
        service = on_trial(bundles, share=0.9)

        async def fail(*_: object) -> np.ndarray:
            raise RuntimeError("broken kernel")

        service.trial._batcher.submit = fail  # as a network does that does not run here

        async def ask() -> list[str]:
            with pytest.raises(RequestError, match="an image that can be read"):
                await service.answer(service.live, [("x", b"no image")])
            return [(await service.answer(service.live, [("x", png(0))]))[0].name for _ in range(20)]

        assert set(asyncio.run(ask())) == {"first"}
        assert service.trial.tally.errors >= 10
        assert judge(service.trial.tally, RULES)[0] is False
        service.close()

    def test_both_are_compared_on_the_same_images(self, bundles, png):
        service = on_trial(bundles, share=0.0)

        async def ask() -> None:
            # What comes while the candidate is busy is not compared, and a busy machine is busy for longer.
            for seed in range(5000):
                await service.answer(service.live, [("x", png(seed % 20))])
                await asyncio.sleep(0.002)
                if service.trial.tally.compared >= 20:
                    return

        asyncio.run(ask())
        counted = service.trial.tally
        first, second = service.live.bundle, service.trial.candidate.bundle
        images = [png(seed) for seed in range(20)]
        differ = np.mean(
            [a.label != b.label for a, b in zip(first.predict(images), second.predict(images), strict=True)]
        )
        assert counted.answered_candidate == 0 and counted.compared >= 20
        assert counted.disagreed / counted.compared == pytest.approx(differ, abs=0.35) and differ > 0.2
        assert counted.seconds_live > 0 and counted.compared + counted.unseen <= counted.answered_live
        service.close()

    @pytest.mark.parametrize("alike", [True, False], ids=["as both see it", "as each sees it"])
    def test_they_are_on_images_that_are_decoded_one_at_a_time(self, bundles, png, alike, monkeypatch):
        for module in ("decoding", "trial"):
            monkeypatch.setattr(f"raytl.serving.{module}.LARGE_PIXELS", 1000)  # all are larger
        monkeypatch.setattr("raytl.serving.trial._see_alike", lambda *_: alike)
        service = on_trial(bundles, share=0.0)

        async def ask() -> None:
            deadline = time.monotonic() + 60
            while service.trial.tally.compared < 3 and time.monotonic() < deadline:
                await service.answer(service.live, [("x", png(0)), ("y", png(1))])
                await asyncio.sleep(0.01)

        asyncio.run(ask())
        counted = service.trial.tally
        assert counted.compared >= 3 and counted.lost == counted.errors == 0 and counted.seconds_live > 0
        service.close()

    def test_a_comparison_that_comes_to_nothing_is_counted(self, bundles, png, monkeypatch):
        service = on_trial(bundles, share=0.0)
        monkeypatch.setattr("raytl.serving.trial.Trial._tallied", None)  # no memory for it, say

        async def ask() -> None:
            deadline = time.monotonic() + 60
            while service.trial.tally.lost < 2 and time.monotonic() < deadline:
                await service.answer(service.live, [("x", png(0))])
                await asyncio.sleep(0.01)

        asyncio.run(ask())
        assert service.trial.tally.lost >= 2 and service.trial.tally.compared == 0
        service.close()

    @pytest.mark.parametrize("share", [0.0, 0.5], ids=["shadow", "canary"])
    def test_answers_of_the_served_version_are_watched_and_captured_and_the_candidates_are_not(
        self, bundles, png, tmp_path, share
    ):
        service = on_trial(bundles, share=share, capture=str(tmp_path))
        images = {png(seed) for seed in range(60)}

        async def ask() -> set[bytes]:
            who = {image: (await service.answer(service.live, [("x", image)]))[0].name for image in images}
            return {image for image, name in who.items() if name == "first"}

        of_first = asyncio.run(ask())
        assert (len(of_first) == len(images)) is (share == 0)
        assert service.monitor.seen == len(of_first) > 0
        service.close()
        (captured,) = tmp_path.glob("captured-*-0.parquet")
        assert set(read_table(captured).column("image").to_pylist()) == of_first

    @pytest.mark.parametrize("asked", ["/v1/predict", "/v1/predict?sets=true", "/v2/models/first/versions/{}/infer"])
    def test_a_request_that_is_the_served_versions_alone_is_compared_too(self, bundles, png, asked):
        """As those of the page at ``/``; else a trial without other requests would neither end nor say why."""
        service = on_trial(bundles, share=0.9)
        image = base64.b64encode(png(0)).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}
        body = {"inputs": [tensor]} if "infer" in asked else {"image": image}
        path, deadline = asked.format(service.live.version), time.monotonic() + 60
        with TestClient(create_http(service), "http://127.0.0.1") as client:
            while service.trial.tally.compared < 2:
                answer = client.post(path, json=body).raise_for_status().json()
                assert asked == "/v1/predict" or answer.get("model", answer.get("model_name")) == "first"
                assert time.monotonic() < deadline
                time.sleep(0.01)
        tally = service.trial.tally
        assert tally.answered_live > 0 and (tally.answered_candidate == 0 or asked == "/v1/predict")
        service.close()

    def test_a_candidate_that_does_not_load_leaves_the_rest_as_it_is(self, bundles, tmp_path):
        service = on_trial(bundles, share=0.1)
        broken = Candidate(bundle=str(tmp_path), version="x", share=0.1)
        asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), candidate=broken)))
        assert service.live.name == "first" and service.trial is None and "model.json is missing" in service.refused
        service.close()

    def test_a_promoted_one_is_not_loaded_again(self, bundles):
        service = on_trial(bundles, share=0.1)
        loaded = service.trial.candidate.bundle
        settings = ServingSettings(bundle="/gone", version=bundle_version(bundles["second"]), model="second")
        asyncio.run(service.apply(settings))
        assert service.live.bundle is loaded and service.trial is None
        service.close()


@pytest.mark.parametrize("rules", [{"share": 1.0}, {"share": -0.1}, {"max_disagreement": 0}, {"max_slowdown": 0.5}])
def test_rules_that_mean_nothing_are_refused(rules):
    with pytest.raises(UserError, match="serving: 'candidate' needs"):
        Candidate(bundle="b", **rules)


def test_what_was_counted_before_a_change_that_failed_stands():
    """The trial is put back, and the same replica counts anew."""
    counted = Judge("raytl", dict(vars(RULES)))
    counted.hear("replica-first", tally(50, disagreed=4).to_json())
    counted.hear("replica-first", tally(60, disagreed=5).to_json())
    counted.hear("replica-again", tally(10, disagreed=0).to_json())
    assert counted.figures()["compared"] == 70


def test_each_trial_counts_for_itself(bundles):
    service = Service()
    settings = ServingSettings(bundle=str(bundles["first"]))
    version = bundle_version(bundles["second"])
    on_trial = ServingSettings(
        bundle=str(bundles["first"]), candidate=Candidate(bundle=str(bundles["second"]), version=version, trial="t")
    )
    counters = []
    for wanted in (on_trial, settings, on_trial):
        asyncio.run(service.apply(wanted))
        counters.append(service._trial.counter if service._trial is not None else None)
    service.close()
    assert counters[1] is None and None not in (counters[0], counters[2]) and counters[0] != counters[2]
