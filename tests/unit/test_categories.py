from __future__ import annotations

from pathlib import Path

import pytest

from api.routing import CategoriesError, load_categories

GOOD = """
[tiers.highway]
layers = ["highway", "district"]

[categories.pothole]
name = "Pothole"
description = "A hole."
tier = "highway"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "categories.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_ones_load() -> None:
    categories = load_categories(None)
    assert categories["pothole"].tier.layers == ("highway", "district")
    assert categories["litter"].tier.layers == ("district", "highway")
    assert all(code == category.code for code, category in categories.items())


def test_an_operator_s_own(tmp_path: Path) -> None:
    (pothole,) = load_categories(written(tmp_path, GOOD)).values()
    assert (pothole.code, pothole.name, pothole.tier.name) == ("pothole", "Pothole", "highway")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('tier = "highway"', 'tier = "skyway"', r"category 'pothole': there is no tier 'skyway'"),
        ('tier = "highway"', "", r"category 'pothole' has no tier; add it"),
        ('tier = "highway"', 'tier = ["highway"]', r"category 'pothole': tier must be a text"),
        ('name = "Pothole"', "", r"category 'pothole' has no name; add it"),
        ('name = "Pothole"', 'name = " "', r"category 'pothole': name must be a text"),
        ('name = "Pothole"', "name = 7", r"category 'pothole': name must be a text"),
        ('"A hole."', '"A hole."\ncolour = "red"', r"category 'pothole': 'colour' means nothing"),
        ("[categories.pothole]", f"[categories.{'p' * 65}]", r"at most 64 characters"),
        ('["highway", "district"]', "[]", r"tier 'highway': layers must list"),
        ('["highway", "district"]', '"highway"', r"tier 'highway': layers must list"),
        ('["highway", "district"]', '["highway", 1]', r"tier 'highway': layers must list"),
        ("[tiers.highway]", "[tiers.highway]\nroads = 1", r"tier 'highway': roads must list"),
        (
            "[tiers.highway]",
            "[tiers.highway]\nroads = [{number = 'M1'}]",
            r"tier 'highway', roads has no layer",
        ),
        (
            "[tiers.highway]",
            "[tiers.highway]\nroads = [{layer = 'trunk', number = '('}]",
            r"number '\(' is no regular expression: .*; correct it",
        ),
        (
            "[tiers.highway]",
            "[tiers.highway]\ndelegations = [{codes = 'N*'}]",
            r"tier 'highway', delegations has no body",
        ),
        ("[tiers.highway]", "[layers.highway]", r"the file has no tiers"),
        ("[tiers.highway]", "[tiers.highway", r"is no TOML: .*correct that line"),
        (GOOD, "[tiers]\n[categories]", r"has no categories; add a"),
        (GOOD, "tiers = {}\ncategories = {a = 1}", r"category 'a' must be a table"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(CategoriesError, match=expected) as raised:
        load_categories(path)
    assert str(raised.value).startswith(str(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CategoriesError, match="GEOROUTER_CATEGORIES"):
        load_categories(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(GOOD.replace("hole.", "hôle.").encode("latin-1"))
    with pytest.raises(CategoriesError, match="is no TOML"):
        load_categories(path)
