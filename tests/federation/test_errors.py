"""Every kind of fault that a source of data can name is input that a user can correct, and has a sentence."""

import ast
from pathlib import Path

from federation.wire.errors import INPUT_CODES, TEXTS

CHECKOUT = Path(__file__).resolve().parents[2]
RAISERS = {"guarded", "fault", "refuse", "Problem", "DataError", "BadFile"}


def codes_of(file):
    """First arguments, where these are plain texts, of all calls that name a fault."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in RAISERS and isinstance(node.args[0].value, str):
                yield node.args[0].value


def test_every_fault_of_data_has_a_sentence_and_ends_a_run_as_bad_input():
    found = {code for file in (CHECKOUT / "data_partitions").rglob("*.py") for code in codes_of(file)}
    assert {"missing_file", "unknown_label", "duplicate_image", "bad_encoding", "partition_too_large"} <= found
    assert found <= INPUT_CODES
    assert found <= set(TEXTS)
