from __future__ import annotations

import pytest

from raytl.core.names import few, plural, printable


@pytest.mark.parametrize(
    ("names", "how", "told"),
    [
        ([], {}, ""),
        (["a"], {}, "a"),
        (["a", "b", "c"], {}, "a, b, c"),
        (["a", "b", "c", "d"], {}, "a, b, c, …"),
        (["a", "b"], {"most": 1}, "a, …"),
        (["it's", "b"], {"quoted": True}, "'it's', 'b'"),
        (["a\x1b[31m"], {"quoted": True}, r"'a\x1b[31m'"),
    ],
)
def test_a_few_names_for_a_sentence(names, how, told):
    assert few(iter(names), **how) == told


def test_one_and_several():
    assert [f"image{plural(count)}" for count in (0, 1, 2)] == ["images", "image", "images"]


def test_what_is_shown_is_shown_alike_when_it_is_shown_again():
    for text in ("a\x1b[31m", "a\nb\t", "\udcff", "a\u202eb", "naïve 日本"):
        assert printable(printable(text)) == printable(text)
        assert printable(text).isprintable()
