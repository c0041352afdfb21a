"""The files that an import would find, and an import that runs these and no compiled copy of them."""

import importlib
import py_compile
import sys

import pytest

from basics.plugin_files import files_of_module
from basics.plugins import PluginError, Table, installed, instance_of

OFFER = {"metrics": {"seven": "my_things.things:ITEM"}}


def value_of_seven():
    return Table("metrics", {}, instance_of(int))["seven"]


def compiled_of_something_else(things):
    text = things.read_text()
    things.write_text(text.replace("7", "666"))
    py_compile.compile(str(things), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    things.write_text(text)


def test_one_that_another_imports_first_is_run_from_its_source_too(install, site):
    install("my-things", OFFER)
    compiled_of_something_else(site / "my_things" / "things.py")
    install("your-things", {"metrics": {"eight": "your_things.things:ITEM"}}, text="from my_things.things import ITEM")
    table = Table("metrics", {}, instance_of(int))
    assert (table["eight"], table["seven"]) == (7, 7)


def test_a_compiled_copy_of_something_else_is_not_run(install, site):
    """Python itself runs an unchecked copy without a look at the source, so the digest would speak of other code."""
    plugin = install("my-things", OFFER)
    digest = plugin.digest()
    compiled_of_something_else(site / "my_things" / "things.py")
    assert plugin.digest() == digest
    assert value_of_seven() == 7
    importlib.reload(sys.modules["my_things.things"])
    assert sys.modules["my_things.things"].ITEM == 7


def test_no_compiled_copy_is_written(install, site, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    install("my-things", OFFER)
    assert value_of_seven() == 7 and not list(site.glob("my_things/__pycache__"))


def test_nothing_is_imported_from_the_folder_of_compiled_copies(install, site):
    install("my-things", OFFER, text="from my_things.__pycache__.more import ITEM")
    (site / "my_things" / "__pycache__").mkdir()
    (site / "my_things" / "__pycache__" / "more.py").write_text("ITEM = 7\n")
    with pytest.raises(PluginError, match="is in a folder of compiled copies, of which nothing is imported"):
        value_of_seven()


def test_a_compiled_module_without_source_is_a_file_like_others(install, site):
    plugin = install("my-things", OFFER)
    things, digest = site / "my_things" / "things.py", plugin.digest()
    py_compile.compile(str(things), cfile=str(things.with_suffix(".pyc")))
    assert plugin.digest() != digest
    things.unlink()
    importlib.invalidate_caches()
    assert "my_things/things.pyc" in files_of_module("my_things") and value_of_seven() == 7


def test_a_package_without_init_is_digested(install, site):
    """As of an editable installation, of which RECORD names nothing."""
    plugin = install("my-things", OFFER, record=False)
    (site / "my_things" / "__init__.py").unlink()
    importlib.invalidate_caches()
    first = plugin.digest()
    (site / "my_things" / "things.py").write_text("ITEM = 8\n")
    assert plugin.digest() != first and list(files_of_module("my_things")) == ["my_things/things.py"]


def test_of_a_folder_in_two_places_all_files_count(install, site, tmp_path, monkeypatch):
    plugin = install("my-things", OFFER)
    (site / "my_things" / "__init__.py").unlink()
    (tmp_path / "other" / "my_things").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "other")
    first = plugin.digest()
    (tmp_path / "other" / "my_things" / "things.py").write_text("ITEM = 9\n")
    importlib.invalidate_caches()
    assert plugin.digest() != first and value_of_seven() == 9


def test_entry_points_without_code_have_no_digest(install, site):
    plugin = install("my-things", OFFER)
    for file in (site / "my_things").iterdir():
        file.unlink()
    (site / "my_things" / "data.txt").write_text("")
    importlib.invalidate_caches()
    with pytest.raises(PluginError) as problem:
        plugin.digest()
    assert str(problem.value) == (
        "plug-in 'my-things' 1.0 has entry points in 'my_things', and no code is found there; install it again"
    )


def test_a_link_to_a_folder_is_refused(install, site, tmp_path):
    plugin = install("my-things", OFFER)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "m.py").write_text("ITEM = 9\n")
    (site / "my_things" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PluginError) as problem:
        plugin.digest()
    assert str(problem.value) == (
        f"plug-in 'my-things' 1.0 has a link in the place of a folder, {site}/my_things/sub; put the folder itself there"
    )
    (site / "my_things" / "sub").unlink()
    (site / "my_things").rename(tmp_path / "my_things")
    (site / "my_things").symlink_to(tmp_path / "my_things")
    (tmp_path / "my_things" / "things.py").write_text("ITEM = 9\n")
    assert len(files_of_module("my_things")) == 2, "the package itself may be linked to"
    assert [one.name for one in installed() if one.name == "my-things"]
