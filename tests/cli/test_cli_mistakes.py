"""What the user got wrong is one sentence on stderr and exit code 2, and no traceback."""

from __future__ import annotations

import pytest
from photos import COLOURS, SPACE, folder, picture, space

from raytl.runs import RunStore


def only_sentence(done) -> str:
    assert done.code == 2
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("raytl: "), done.err
    return lines[0].removeprefix("raytl: ")


def test_a_tracker_that_does_not_exist(raytl, tmp_path):
    folder(tmp_path / "photos")
    said = only_sentence(raytl("search", "--target", "photos", "--log", "wandb"))
    assert "--log wandb: there is no tracker 'wandb'; known are mlflow, tensorboard" in said


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--name", "my run", "'my run' cannot be a run's name"),
        ("--name", "taken", "run 'taken' exists already in raytl-runs"),
        ("--ship", "al", "ship 'al': one of tested, all; did you mean 'all'?"),
        ("--metric", "acuracy", "did you mean 'accuracy'?"),
        ("--at", "recal=0.9", "recal"),
    ],
)
def test_what_needs_no_data_is_said_before_it_is_read(raytl, tmp_path, option, value, sentence):
    RunStore(tmp_path / "raytl-runs").create("taken", {}).interrupt()
    assert sentence in only_sentence(raytl("search", "--target", "not-there", option, value))


class TestData:
    def test_an_empty_folder(self, raytl, tmp_path):
        (tmp_path / "photos").mkdir()
        assert only_sentence(raytl("search", "--target", "photos")).startswith("photos/: no images found; give")
        assert only_sentence(raytl("check", "photos")).startswith("photos/: no images found; give")

    def test_one_class(self, raytl, tmp_path):
        for number in range(3):
            (tmp_path / "photos" / "daisy").mkdir(parents=True, exist_ok=True)
            picture("daisy", number).save(tmp_path / "photos" / "daisy" / f"{number}.png")
        said = only_sentence(raytl("search", "--target", "photos"))
        assert said == "photos/: only one class, 'daisy'; a classifier needs at least two. Add another class."

    def test_data_that_a_search_would_not_take(self, raytl, tmp_path):
        folder(tmp_path / "photos" / "all", 2, flat=True)
        done = raytl("check", "photos", "--json")
        assert done.code == 2
        assert not done.document["ok"]

    def test_nothing_but_corrupt_images(self, raytl, tmp_path):
        for name in COLOURS:
            (tmp_path / "photos" / name).mkdir(parents=True)
            (tmp_path / "photos" / name / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
        said = only_sentence(raytl("search", "--target", "photos"))
        assert said.startswith("photos/: none of the 3 images can be read (first: photos/daisy/0.png:")

    def test_a_path_that_is_not_there(self, raytl):
        assert only_sentence(raytl("check", "nowhere")) == "nowhere: no such file or folder; check the path"

    def test_no_labels_at_all(self, raytl, tmp_path):
        folder(tmp_path / "camera", 2, flat=True)
        assert "--source-domain" in only_sentence(raytl("search", "--unlabelled", "camera"))

    @pytest.mark.parametrize("command", [["search"], ["quote"], ["sources", "rank"]])
    def test_a_path_without_its_option(self, raytl, tmp_path, command):
        folder(tmp_path / "my photos", 2)
        assert only_sentence(raytl(*command, "my photos")).endswith("; did you mean --target 'my photos'?")

    @pytest.mark.parametrize("share", ["20%", "0.2"])
    def test_a_share_is_written_either_way(self, raytl, tmp_path, share):
        folder(tmp_path / "photos", 2)
        said = only_sentence(raytl("search", "--target", "nowhere", "--holdout", share))
        assert said == "nowhere: no such file or folder; check the path"


class TestSpace:
    @pytest.fixture(autouse=True)
    def _photos(self, tmp_path):
        folder(tmp_path / "photos")

    def test_an_unknown_key_names_file_line_and_the_nearest(self, raytl, tmp_path):
        (tmp_path / "mine.yaml").write_text(SPACE.replace("augmentation:", "adaptaton:"))
        said = only_sentence(raytl("search", "--target", "photos", "--space", "mine.yaml"))
        assert said == "mine.yaml line 10: unknown key 'adaptaton'; did you mean 'adaptation'?"

    def test_an_unknown_key_on_the_command_line(self, raytl, tmp_path):
        space(tmp_path)
        said = only_sentence(raytl("search", "--target", "photos", "--space", "tiny.yaml", "--set", "cutt=0"))
        assert "unknown key 'cutt'; did you mean 'cut'?" in said and "line" not in said

    def test_an_unknown_name(self, raytl):
        said = only_sentence(raytl("search", "--target", "photos", "--space", "vision-smal"))
        assert said.startswith("unknown search space 'vision-smal'; did you mean 'vision-small'?")

    @pytest.mark.parametrize("budget", ["5x", "0", "-3m", "soon", "inf", ""])
    def test_a_time_budget_that_is_none(self, raytl, budget):
        said = only_sentence(raytl("search", "--target", "photos", "--time-budget", budget))
        assert said == f"--time-budget {budget}: give a time above zero, such as 90s, 10m or 2h"

    def test_no_model_whose_weights_can_be_had(self, raytl, tmp_path):
        (tmp_path / "mine.yaml").write_text(SPACE.replace("scratch:cnn-small", "torchvision:resnet18"))
        said = only_sentence(raytl("search", "--target", "photos", "--space", "mine.yaml"))
        assert "could not be fetched" in said and "torchvision:resnet18@none" in said


class TestCluster:
    def test_an_address_where_nobody_answers_is_told_before_a_run_is_begun(self, raytl, tmp_path):
        folder(tmp_path / "photos")
        space(tmp_path)
        named = ("--space", "tiny.yaml", "--name", "mine", "--holdout", "0")
        said = only_sentence(raytl("search", "--target", "photos", *named, "--address", "127.0.0.1:1"))
        assert said.startswith("no Ray cluster answers at '127.0.0.1:1' (connection refused): check --address")
        assert not (tmp_path / "raytl-runs").exists()

    def test_the_doctor_exits_with_1_and_says_what_to_do(self, raytl):
        done = raytl("doctor", "--address", "127.0.0.1:1")
        first = next(line for line in done.out.splitlines() if "problem" in line)
        assert done.code == 1 and first.split()[:2] == ["problem", "cluster"]
        assert "check --address or RAY_ADDRESS" in " ".join(done.out.split())


class TestRunsAndModels:
    def test_an_unknown_run(self, raytl):
        assert only_sentence(raytl("runs", "show", "tulips")) == "no run 'tulips' in raytl-runs; it holds no run yet"

    @pytest.mark.parametrize("command", ["deploy", "predict"])
    def test_a_folder_that_is_no_bundle(self, raytl, tmp_path, command):
        folder(tmp_path / "photos")
        more = ["photos/daisy/0.png"] if command == "predict" else []
        assert "model.json" in only_sentence(raytl(command, "photos", *more))

    def test_taking_down_what_is_not_there(self, raytl):
        assert only_sentence(raytl("undeploy")) == "no endpoint 'raytl' is served from this machine"

    def test_a_run_name_that_is_a_path(self, raytl, tmp_path):
        folder(tmp_path / "photos")
        space(tmp_path)
        done = raytl("search", "--target", "photos", "--space", "tiny.yaml", "--name", "../up")
        assert done.code == 2 and "'../up' cannot be a run's name" in done.err


ON_TRIAL = "a model on trial answers where the served one does, as that was deployed"


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["frob"], "no such command 'frob'; see: raytl --help"),
            (["check"], "missing argument 'PATH'; see: raytl check --help"),
            (["search", "--trails", "3"], "no such option: --trails (Possible options: --metric, --trials); see: "),
            (["search", "--trials", "0"], "--trials 0: give a whole number above zero"),
            (["search", "--trials", "+5"], "+ asks for more than an earlier search had: name it with --resume RUN"),
            (["search", "--storage", "foo://bucket/runs", "--resume", "a"], "foo://bucket/runs: cannot be opened"),
            (["runs", "send", "a"], "raytl-runs is a folder: its runs are where they belong"),
            (["runs", "prune"], "give at least one rule: --keep 20"),
            (["runs", "prune", "--older-than", "soon"], "--older-than soon: give an age such as 12h"),
            (["runs", "prune", "--status", "bad"], "--status bad: give one of damaged, finished, interrupted"),
            (["deploy", "model", "--canary", "much"], "--canary much: give a share, such as 5% or 0.05"),
            (["deploy", "model", "--canary", "100%"], "--canary 100%: give a share above 0 and below 100 %"),
            (["deploy", "model", "--canary", "5%", "--shadow"], "--shadow answers nobody and --canary some"),
            (["deploy", "model", "--promote-after", "9"], "--promote-after is for a model on trial; give --canary"),
            (["deploy", "model", "--max-slowdown", "1.5"], "--max-slowdown is for a model on trial; give --canary"),
            (["deploy", "model", "--max-disagreement", "10%"], "--max-disagreement is for a model on trial"),
            *(
                (["deploy", "model", *mode, *option], f"{ON_TRIAL}; leave out {option[0]}")
                for mode in (["--canary", "5%"], ["--shadow"])
                for option in (["--token"], ["--port", "8000"], ["--host", "0.0.0.0"], ["--min-replicas", "2"])
            ),
            (["deploy", "model", "--shadow", "--capture", "odd"], f"{ON_TRIAL}; leave out --capture"),
            (["deploy", "model", "--shadow", "--allow-host", "a"], f"{ON_TRIAL}; leave out --allow-host"),
            (["endpoint", "token"], "there is no token of an endpoint 'raytl' here"),
            (["deploy", "model", "--port", "70000"], "invalid value for '--port'"),
            (["search", "--target", "photos", "--holdout", "much"], "--holdout much: give a share, such as 5% or 0.05"),
            (["quote", "--target", "photos", "--holdout", "120%"], "--holdout 120%: give a share, such as 5% or 0.05"),
            (["search", "photos [x]"], "got unexpected extra argument(s) (photos [x]); see: raytl search --help"),
            (["search", "--set", "nothing", "--target", "photos"], "--set nothing: write key=value"),
        ],
    )
    def test_each_has_its_sentence(self, raytl, arguments, said):
        assert only_sentence(raytl(*arguments)).startswith(said)

    def test_json_says_it_in_a_document_too(self, place):
        done = place.run("check", "nowhere", "--json")
        message = "nowhere: no such file or folder; check the path"
        assert (done.code, done.document) == (2, {"schema": 1, "error": message, "exit_code": 2})
        assert done.err == f"raytl: {message}\n"
        done = place.run("check", "--json")
        assert done.code == 2 and done.document["error"].startswith("missing argument 'PATH'")


class TestOurOwn:
    def test_a_bug_exits_with_1_a_traceback_and_the_document(self, place):
        """An installation where a dependency does not import."""
        folder(place.folder / "photos", 2)
        (place.folder / "broken").mkdir()
        (place.folder / "broken" / "PIL.py").write_text("raise RuntimeError('out of order')")
        done = place.run("check", "photos", "--json", PYTHONPATH=str(place.folder / "broken"))
        assert done.code == 1
        assert "Traceback" in done.err and "please report it" in done.err
        assert done.document == {"schema": 1, "error": "RuntimeError: out of order", "exit_code": 1}


@pytest.mark.parametrize("mode", [[], ["--shadow"]])
@pytest.mark.parametrize(("given", "patience"), [("30m", (1800, 1800)), ("30s", (30, 120)), (None, (None, None))])
def test_what_may_take_longer_is_told_with_the_option_that_lets_it(raytl, monkeypatch, mode, given, patience):
    """patience: seconds for room, and until it answers, which are no fewer than without the option."""
    from raytl.serving.room import NotInTimeError

    def deploy(*_, notice, room_s=None, wait_s=None, **options):
        assert (room_s, wait_s) == patience
        notice("'raytl' waits for a node")
        raise NotInTimeError("'raytl' found none: add one, and try again")

    monkeypatch.setattr("raytl.api.deploy", deploy)
    monkeypatch.setattr("raytl.api.find_bundle", lambda *_: "model")
    done = raytl("deploy", "model", *mode, *(["--wait", given] if given else []))
    assert done.code == 2 and done.err.strip().splitlines() == [
        "'raytl' waits for a node (--wait gives it longer)",
        "raytl: 'raytl' found none: add one, and try again, or wait longer with --wait",
    ]


@pytest.mark.parametrize("command", [["rollback"], ["endpoint", "promote"]])
def test_a_command_without_that_option_does_not_speak_of_it(raytl, monkeypatch, command):
    from raytl.serving.room import NotInTimeError

    def waits(*_, notice, **options):
        notice("'raytl' waits for a node")
        raise NotInTimeError("'raytl' found none")

    monkeypatch.setattr(f"raytl.serving.{command[-1]}", waits)
    done = raytl(*command)
    assert done.code == 2 and done.err.strip().splitlines() == ["'raytl' waits for a node", "raytl: 'raytl' found none"]
