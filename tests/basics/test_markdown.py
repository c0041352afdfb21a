"""Foreign words on a page: nothing that they hold formats it."""

import pytest
from markdown_it import MarkdownIt

from basics.markdown import code, escaped, fenced

PARSER = MarkdownIt("gfm-like", {"linkify": False, "html": True})


@pytest.mark.parametrize("text", ["`a` **b** [c](d) <i>e</i> ~~f~~", "a | b", "![x](y)", "# a", "\\`a`", "&lt;b&gt;"])
def test_escaped_words_are_read_as_they_were_written(text):
    (inline,) = [token for token in PARSER.parse(f"words {escaped(text)}") if token.type == "inline"]
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children) == f"words {text}"


def test_escaped_words_stay_on_a_line_of_bounded_length():
    assert escaped("a\n# b\x1b[2J") == "a \\# b?\\[2J" and len(escaped("x" * 500)) < 130


@pytest.mark.parametrize("text", ["a", "a `b` c", "``", "`", "a\nb"])
def test_code_is_one_piece(text):
    (inline,) = [token for token in PARSER.parse(f"run {code(text)}") if token.type == "inline"]
    assert [child.type for child in inline.children] == ["text", "code_inline"]


@pytest.mark.parametrize("text", ["a", "~~~~", "~~~~~~~~\n# x", "```\n<b>", "\n\n    x"])
def test_a_fence_is_one_block(text):
    assert [token.type for token in PARSER.parse("\n".join([*fenced(text), "", "after"]))] == [
        "fence", "paragraph_open", "inline", "paragraph_close",
    ]  # fmt: skip


def test_what_is_too_long_is_cut_and_said():
    assert fenced("x" * 30, at_most=10)[1:-1] == ["x" * 10, "... (20 more characters)"]
