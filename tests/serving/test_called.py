"""What a served model is called: by its run, or by its folder."""

from __future__ import annotations

import shutil

import pytest

from raytl.serving.live import load
from raytl.serving.settings import ServingSettings


@pytest.mark.parametrize(("folder", "name"), [("flowers/model", "first"), ("flowers", "flowers")])
def test_a_model_is_called_by_its_run_where_it_lies_in_that(bundles, tmp_path, folder, name):
    shutil.copytree(bundles["first"], tmp_path / folder)
    assert load(ServingSettings(bundle=str(tmp_path / folder))).name == name
    assert load(ServingSettings(bundle=str(tmp_path / folder), model="given")).name == "given"
