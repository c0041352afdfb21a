"""Plug-ins: what is listed without an import, digests of files as they are, tables, and what a centre lets in."""

import json
import shutil
import sys

import pytest

from basics.plugins import (
    CENTRE_FILE_VARIABLE,
    Identity,
    PluginError,
    Table,
    clash,
    installed,
    instance_of,
    only,
    subclass_of,
)

MODULE = "class Thing:\n    name = 'thing'\n\nITEM = 7\n"


def metrics(**builtin):
    return Table("metrics", builtin, instance_of(int))


def test_what_is_installed_is_listed_and_nothing_is_imported(install):
    before = {plugin.name for plugin in installed()}
    install(
        "my-things",
        {"metrics": {"seven": "my_things.things:ITEM"}, "colours": {"red": "x:y"}},
        text="raise SystemExit(9)",
    )
    (plugin,) = [plugin for plugin in installed() if plugin.name not in before]
    assert (plugin.name, plugin.version, plugin.modules) == ("my-things", "1.0", ("my_things",))
    assert plugin.offers == (("metrics", "seven", "my_things.things:ITEM"),), "a group of nobody's is none of ours"
    table = metrics(one=1)
    assert list(table) == ["one", "seven"] and "seven" in table and "eight" not in table and len(table) == 2
    assert len(plugin.digest()) == 64 and not any(name.startswith("my_things") for name in sys.modules)


def test_a_distribution_without_entry_points_of_ours_is_no_plugin(install, site):
    with pytest.raises(StopIteration):
        install("other-things", {})
    assert metrics(one=1).plugin_of("one") is None


def test_the_digest_is_of_the_files_as_they_are(install, site):
    plugin = install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}})
    first = plugin.digest()
    (site / "my_things" / "__pycache__").mkdir()
    (site / "my_things" / "__pycache__" / "x.pyc").write_bytes(b"1")
    (site / "my_things-1.0.dist-info" / "INSTALLER").write_text("pip")
    assert plugin.digest() == first
    things = site / "my_things" / "things.py"
    things.write_text(MODULE.replace("7", "8"))
    edited = plugin.digest()
    things.write_text(MODULE)
    (site / "my_things" / "more.py").write_text("")  # which RECORD does not name
    added = plugin.digest()
    (site / "my_things" / "more.py").unlink()
    things.rename(site / "my_things" / "renamed.py")
    renamed = plugin.digest()
    assert len({first, edited, added, renamed}) == 4
    (site / "my_things" / "renamed.py").rename(things)
    assert plugin.digest() == first


def test_entry_points_are_part_of_the_digest(install, site):
    first = install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}}).digest()
    shutil.rmtree(site / "my_things-1.0.dist-info")
    assert install("my-things", {"metrics": {"seven": "my_things.things:OTHER"}}).digest() != first
    shutil.rmtree(site / "my_things-1.0.dist-info")
    assert install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}}, version="1.1").digest() == first


def test_an_editable_installation_has_the_digest_of_the_other(install, site, tmp_path, monkeypatch):
    first = install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}}).identity
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.move(site / "my_things", checkout)
    info = site / "my_things-1.0.dist-info"
    (site / "__editable__.my_things.pth").write_text(str(checkout))
    (info / "RECORD").write_text("__editable__.my_things.pth,,\n")
    (info / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}, "url": "file:///x"}))
    monkeypatch.syspath_prepend(checkout)
    (plugin,) = [plugin for plugin in installed() if plugin.name == "my-things"]
    assert plugin.files == () and plugin.identity == first
    (checkout / "my_things" / "things.py").write_text("ITEM = 8\n")
    assert plugin.identity != first


def test_a_module_of_one_file_and_files_beside_it(install, site):
    (site / "single.py").write_text("ITEM = 1\n")
    (site / "shared_space").mkdir()
    (site / "shared_space" / "data.txt").write_text("a")
    plugin = install(
        "my-things", {"metrics": {"one": "single:ITEM"}}, files=["shared_space/data.txt,,", "../../bin/x,,"]
    )
    first = plugin.digest()
    (site / "single.py").write_text("ITEM = 2\n")
    second = plugin.digest()
    (site / "shared_space" / "data.txt").write_text("b")
    assert len({first, second, plugin.digest()}) == 3


# -- tables -------------------------------------------------------------------------------------------------------------


def test_an_entry_is_imported_when_it_is_asked_for(install):
    install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}})
    table = metrics(one=1)
    assert table["one"] == 1 and "my_things.things" not in sys.modules and table.loaded == {}
    assert table["seven"] == 7 and "my_things.things" in sys.modules
    assert (
        table.plugin_of("seven").name == "my-things" and table.plugin_of("one") is None and table.get("eight") is None
    )
    with pytest.raises(KeyError):
        table["eight"]


@pytest.mark.parametrize(
    ("text", "value", "words"),
    [
        ("import nowhere_at_all", "my_things.things:ITEM",
         "cannot be imported (ModuleNotFoundError: No module named 'nowhere_at_all'); correct or uninstall it"),
        ("raise SystemExit(3)", "my_things.things:ITEM", "cannot be imported (SystemExit: 3); correct or uninstall it"),
        (MODULE, "my_things.things:ITEMS",
         "cannot be imported (AttributeError: module 'my_things.things' has no attribute 'ITEMS'); correct or uninstall it"),
        (MODULE, "my_things.things:Thing.name", "must be a builtins.int, and is 'thing'"),
    ],
)  # fmt: skip
def test_an_entry_point_that_cannot_be_used_is_one_line_and_others_still_work(text, value, words, install):
    install("my-things", {"metrics": {"seven": value}}, text=text)
    install("fine-things", {"metrics": {"eight": "fine_things.things:ITEM"}})
    table = metrics(one=1)
    with pytest.raises(PluginError) as problem:
        table["seven"]
    assert str(problem.value) == f"plug-in 'my-things' 1.0: entry point polycentre.metrics seven = {value} {words}"
    assert (table["one"], table["eight"]) == (1, 7)


def test_a_class_must_be_of_the_right_base_and_have_the_name_of_its_entry_point(install):
    install("my-things", {"models": {"thing": "my_things.things:Thing", "other": "my_things.things:Thing"}})
    table = Table("models", {}, subclass_of(object, named=lambda thing: thing.name))
    assert table["thing"].name == "thing"
    with pytest.raises(
        PluginError, match="other = my_things.things:Thing calls itself 'thing'; give both the same name$"
    ):
        table["other"]
    with pytest.raises(
        PluginError, match=r"must be a subclass of builtins.int, and is <class 'my_things.things.Thing'>$"
    ):
        Table("models", {}, subclass_of(int))["thing"]


def test_two_plugins_with_the_same_name(install):
    install("my-things", {"metrics": {"seven": "my_things.things:ITEM", "mine": "my_things.things:ITEM"}})
    install("your-things", {"metrics": {"seven": "your_things.things:ITEM"}})
    table = metrics(one=1)
    with pytest.raises(PluginError) as problem:
        table["seven"]
    assert str(problem.value) == (
        "metric 'seven' is offered by 'my-things' and by 'your-things'; uninstall one, or rename its entry point"
    )
    assert table["mine"] == 7


def test_a_name_of_the_projects_own_means_the_projects_own(install):
    install("my-things", {"metrics": {"one": "my_things.things:ITEM"}})
    assert metrics(one=1)["one"] == 1 and list(metrics(one=1)) == ["one"]
    assert clash("metrics", "one", ["polycentre", "my-things"]).startswith(
        "metric 'one' is offered by 'polycentre' and by 'my-things';"
    )


def test_what_is_said_of_an_unknown_name():
    table = Table("strategies", {"local": 1, "pooled": 2}, instance_of(int))
    assert table.unknown("gossip") == (
        "no strategy 'gossip'; known strategies: local, pooled; others come with plug-ins, and none that is installed has it "
        "(entry points polycentre.strategies)"
    )


# -- what a centre lets in ----------------------------------------------------------------------------------------------


def test_only_what_is_listed_is_known_and_only_as_it_is_listed(install, site):
    plugin = install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}}, text="raise SystemExit('imported')")
    table, right = metrics(one=1), plugin.identity
    for listed in ((), [Identity("my-things", "1.1", right.digest)], [Identity("my-things", "1.0", "0" * 64)]):
        with only(listed):
            assert "seven" not in table and list(table) == ["one"]
            with pytest.raises(KeyError):
                table["seven"]
            assert table.unknown("seven") == (
                "metric 'seven' is of plug-in 'my-things' 1.0, which this centre's centre.yaml does not list"
            )
    with only([Identity("My_Things", "1.0", right.digest)]), pytest.raises(PluginError, match="SystemExit: imported"):
        assert "seven" in table and table["seven"]  # it would run: only now is it imported
    assert "seven" in table, "outside, whatever is installed"


def test_what_was_loaded_before_is_not_let_in_without_being_listed(install):
    install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}})
    table = metrics()
    assert table["seven"] == 7
    with only(()), pytest.raises(KeyError):
        table["seven"]


def test_below_a_node_nothing_is_allowed_until_its_file_was_read(install, monkeypatch):
    plugin = install("my-things", {"metrics": {"seven": "my_things.things:ITEM"}})
    monkeypatch.setenv(CENTRE_FILE_VARIABLE, "/etc/centre.yaml")
    table = metrics()
    assert "seven" not in table
    with only([plugin.identity]):
        assert table["seven"] == 7
