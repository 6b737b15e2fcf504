"""Search spaces as files: what they may say, and the one sentence for what they may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raytl.core.dimensions import Choice, Float, Int
from raytl.core.errors import UserError
from raytl.search.space.definition import SearchSpace, load_space
from raytl.search.space.files import shipped_spaces

GOOD = """\
about: a test
epochs: 6
space:
  source_model: [scratch:cnn-small]
  cut: [0, all]
  optimizer: [sgd, adamw]
  head_lr:
    sgd: {low: 0.01, high: 0.1, log: true}
    adamw: {low: 1e-4, high: 1e-2, log: true}
  weight_decay: {low: 0, high: 0.1}
  adaptation: {none: , mcc: {temperature: [1.0, 2.5]}, coral: }
  regulariser: [none, l2-sp]
"""


def load(tmp_path: Path, text: str, *assignments: str) -> SearchSpace:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_space(str(path), assignments)


def sentence(tmp_path: Path, text: str, *assignments: str) -> str:
    with pytest.raises(UserError) as error:
        load(tmp_path, text, *assignments)
    message = str(error.value)
    assert "\n" not in message
    return message


class TestReading:
    def test_a_scalar_is_fixed_a_list_a_choice_and_low_high_a_range(self, tmp_path: Path) -> None:
        space = load(tmp_path, GOOD)
        assert space.name == "mine" and space.about == "a test" and space.settings.epochs == 6
        assert space.plain["cut"] == Choice((0, "all"))
        assert space.plain["weight_decay"] == Float(0.0, 0.1)
        assert space.by_optimizer["head_lr"] == {"sgd": Float(0.01, 0.1, True), "adamw": Float(1e-4, 1e-2, True)}

    def test_a_component_brings_its_own_ranges_and_the_file_overrides_parts_of_them(self, tmp_path: Path) -> None:
        components = load(tmp_path, GOOD).components
        assert list(components["adaptation"]) == ["none", "mcc", "coral"]
        assert components["adaptation"]["mcc"]["temperature"] == Choice((1.0, 2.5))
        assert components["adaptation"]["mcc"]["weight"] == Float(0.03, 3.0, True)
        assert components["adaptation"]["coral"]["weight"] == Float(1.0, 1000.0, True)
        assert list(components["regulariser"]) == ["none", "l2-sp"]

    @pytest.mark.parametrize("text", ["1e-3", "1E-3", ".1e-2", "1.0e-3", "+10e-4", "0.001"])
    def test_numbers_are_read_as_people_write_them(self, tmp_path: Path, text: str) -> None:
        space = load(tmp_path, f"space: {{source_model: scratch:cnn-small, head_lr: {text}}}")
        assert space.plain["head_lr"] == Choice((0.001,))

    def test_words_that_look_a_little_like_numbers_stay_words(self, tmp_path: Path) -> None:
        assert load(tmp_path, "space: {source_model: [e5, 1e, x1e-3]}").plain["source_model"].options == (
            "e5",
            "1e",
            "x1e-3",
        )


class TestMistakes:
    @pytest.mark.parametrize(
        ("line", "text", "hint"),
        [
            (4, "  adaption: [mcc]", "unknown key 'adaption'; did you mean 'adaptation'?"),
            (4, "  adaptation: [mmc]", "unknown adaptation loss 'mmc'; did you mean 'mcc'?"),
            (4, "  adaptation: {mcc: {temprature: 1}}", "unknown key 'temprature'; did you mean 'temperature'?"),
            (4, "  adaptation: {mcc: {temperature: warm}}", "'temperature' is 'warm'; give a number"),
            (4, "  adaptation: {mcc: {weight: {low: 0, high: 1, log: true}}}", "low > 0 where log"),
            (4, "  adaptation: {mcc: {weight: {low: 1, high: .inf}}}", "give numbers low <= high"),
            (4, "  adaptation: {mcc: 3}", "'mcc' must be a mapping"),
            (4, "  regulariser: [l2sp]", "unknown regulariser 'l2sp'; did you mean 'l2-sp'?"),
            (4, "  optimizer: [adam]", "'optimizer' is 'adam'; give one of sgd, adamw"),
            (4, "  head_lr: {low: 0.1, high: 0.01}", "range 0.1 to 0.01; give numbers low <= high"),
            (4, "  head_lr: {low: 0.1, hgih: 1}", "unknown key 'hgih'; did you mean 'high'?"),
            (4, "  head_lr: {low: 0.1}", "needs low and high"),
            (4, "  head_lr: {low: true, high: 1}", "give numbers low <= high"),
            (4, "  head_lr: {low: .nan, high: 1}", "give numbers low <= high"),
            (4, "  head_lr: 1000", "'head_lr' is 1000; give a number from 1e-08 to 100"),
            (4, "  head_lr: []", "needs at least one plain value"),
            (4, "  head_lr: [[0.1]]", "needs at least one plain value"),
            (4, "  head_lr: {sgd: 0.1, adam: 0.1}", "unknown optimizer 'adam'; did you mean 'adamw'?"),
            (4, "  ema: 1.0", "'ema' is 1.0; give a number from 0 to 0.9999"),
            (4, "  augmentation: [flips]", "unknown augmentation 'flips'; did you mean 'flip'?"),
            (4, "  cut: [0, most]", "cut 'most'; give whole numbers, 'any' or 'all'"),
            (4, "  cut: {low: 0.5, high: 2}", "cut '0.5'; give whole numbers"),
            (4, "  cut: [true]", "cut 'True'; give whole numbers"),
            (4, "epoch: 5", "unknown key 'epoch'; did you mean 'epochs'?"),
            (4, "epochs: 0", "'epochs' is 0; give at least 1"),
            (5, "epochs: 3\ngrace_epochs: x", "'grace_epochs' is 'x'; give a number"),
            (6, "pretrain:\n  steps: 3\n  head_lr: x", "'head_lr' is 'x'; give a number"),
            (4, "epochs: many", "'epochs' is 'many'; give a number"),
            (4, "epochs: 2.5", "'epochs' is 2.5; give a whole number"),
            (4, "reduction_factor: 1", "'reduction_factor' is 1; give at least 2"),
            (4, "pretrain: {stepps: 3}", "unknown key 'stepps'; did you mean 'steps'?"),
            (4, "pretrain: 3", "'pretrain' must be a mapping"),
            (4, "first: {cut: 0}", "'first' must be a list of mappings"),
            (4, "first: [mcc]", "'first' must be a mapping"),
            (4, "first: [{adaption: mcc}]", "unknown key 'adaption'; did you mean 'adaptation'?"),
            (4, "first: [{adaptation.mcc.wieght: 1}]", "unknown key 'adaptation.mcc.wieght'; did you mean 'weight'?"),
            (4, "first: [{adaptation.mmc.weight: 1}]", "did you mean 'mcc'?"),
            (4, "  oops: [", "not valid YAML"),
        ],
    )
    def test_name_file_line_and_what_to_give(self, tmp_path: Path, line: int, text: str, hint: str) -> None:
        message = sentence(tmp_path, f"about: a test\nspace:\n  source_model: [scratch:cnn-small]\n{text}\n")
        where = "mine.yaml line" if "YAML" in hint else f"mine.yaml line {line}: "
        assert message.startswith(where)
        assert hint in message

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("", "mine.yaml: a search space is a mapping"),
            ("- a", "mine.yaml: a search space is a mapping"),
            ("epochs: 3", "mine.yaml: 'space' must be a mapping"),
            ("space: {cut: 0}", "mine.yaml line 1: 'source_model' is missing"),
        ],
    )
    def test_a_file_that_is_no_space(self, tmp_path: Path, text: str, hint: str) -> None:
        assert hint in sentence(tmp_path, text)

    def test_a_file_that_is_not_there_or_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such search space file"):
            load_space(str(tmp_path / "none.yaml"))
        (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
        with pytest.raises(UserError, match="not a text file in UTF-8"):
            load_space(str(tmp_path / "picture.yaml"))

    def test_a_model_in_a_folder_whose_name_is_no_utf8_can_be_set(self) -> None:
        space = load_space("vision-small", ["source_model=[file:m\udcfc, scratch:cnn-small]"])
        assert space.plain["source_model"].options == ("file:m\udcfc", "scratch:cnn-small")

    def test_a_name_that_is_not_shipped_names_the_nearest(self) -> None:
        with pytest.raises(UserError, match="unknown search space 'vision-smal'; did you mean 'vision-small'"):
            load_space("vision-smal")


class TestAssignments:
    @pytest.mark.parametrize(
        ("assignment", "key", "expected"),
        [
            ("cut=0", "cut", Choice((0,))),
            ("cut=[0, all]", "cut", Choice((0, "all"))),
            ("cut={low: 0, high: 2}", "cut", Int(0, 2)),
            ("head_lr=1e-3", "head_lr", Choice((0.001,))),
            (" ema = 0.9", "ema", Choice((0.9,))),
            ("space.ema=0.9", "ema", Choice((0.9,))),
        ],
    )
    def test_replace_a_dimension(self, tmp_path: Path, assignment: str, key: str, expected: object) -> None:
        assert load(tmp_path, GOOD, assignment).plain[key] == expected

    def test_reach_one_optimizer_or_one_end_of_a_range(self, tmp_path: Path) -> None:
        rates = load(tmp_path, GOOD, "head_lr.sgd=0.05", "head_lr.adamw.low=0.001").by_optimizer["head_lr"]
        assert rates == {"sgd": Choice((0.05,)), "adamw": Float(0.001, 0.01, True)}

    def test_replace_settings_of_the_space_and_of_pretraining(self, tmp_path: Path) -> None:
        space = load(tmp_path, GOOD, "epochs=3", "pretrain.steps=7")
        assert (space.settings.epochs, space.pretrain.steps) == (3, 7)

    def test_choose_losses_and_keep_what_the_file_says_of_them(self, tmp_path: Path) -> None:
        losses = load(tmp_path, GOOD, "adaptation=[mcc]").components["adaptation"]
        assert list(losses) == ["mcc"] and losses["mcc"]["temperature"] == Choice((1.0, 2.5))

    @pytest.mark.parametrize("given", ["[none, mcc]", "mcc", "{mcc: {}}"])
    def test_set_one_setting_of_a_loss_however_the_loss_was_given(self, tmp_path: Path, given: str) -> None:
        text = f"space: {{source_model: scratch:cnn-small, adaptation: {given}}}"
        assert load(tmp_path, text, "adaptation.mcc.weight=2").components["adaptation"]["mcc"]["weight"] == Choice((2,))

    def test_one_follows_another(self, tmp_path: Path) -> None:
        losses = load(tmp_path, GOOD, "adaptation=dann", "adaptation.dann.weight=2").components["adaptation"]
        assert losses == {"dann": {"weight": Choice((2,))}}

    @pytest.mark.parametrize(
        ("assignment", "hint"),
        [
            ("cut", "--set cut: write key=value"),
            ("=3", "write key=value"),
            ("cut=[0", "is not a value that YAML can read"),
            ("adaption=mcc", "unknown key 'adaption'; did you mean 'adaptation'?"),
            ("adaptation=mmc", "did you mean 'mcc'?"),
            ("epochs.low=3", "'epochs' has no settings of its own"),
            ("head_lr=fast", "'head_lr' is 'fast'; give a number"),
            ("adaptation.mcc.wieght=1", "did you mean 'weight'?"),
        ],
    )
    def test_mistakes_are_sentences(self, tmp_path: Path, assignment: str, hint: str) -> None:
        assert hint in sentence(tmp_path, GOOD, assignment)

    def test_their_mistakes_name_the_assignment_and_not_an_innocent_line_of_the_file(self, tmp_path: Path) -> None:
        assert sentence(tmp_path, GOOD, "weight_decay=7").startswith("--set weight_decay=7: 'weight_decay' is 7")
        assert sentence(tmp_path, GOOD, "epochs=0").startswith("--set epochs=0: 'epochs' is 0")
        assert sentence(tmp_path, GOOD.replace("0.1}\n", "9}\n"), "cut=0").startswith("mine.yaml line 10: ")

    def test_a_space_that_is_no_mapping_stays_a_sentence(self, tmp_path: Path) -> None:
        assert "must be a mapping" in sentence(tmp_path, "space: [cut]", "cut=0")


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_loads_and_says_what_it_is_for(name: str) -> None:
    space = load_space(name)
    assert len(space.about) > 10
    assert space.settings.trials >= 10
    assert all(isinstance(first, dict) for first in space.first)
    narrowed: Any = load_space(name, ["cut=0", "head_lr=1e-2", "adaptation=none"])
    assert narrowed.components["adaptation"] == {"none": {}} and "head_lr" not in narrowed.by_optimizer


def test_the_four_spaces_of_the_product_are_shipped() -> None:
    assert {"demo", "vision-small", "vision-gpu", "domain-adaptation"} <= set(shipped_spaces())
