"""node.log: every entry begins with its time and no other line does, and the file stays small."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clients import node_log

CHECKOUT = Path(__file__).resolve().parents[2]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def lines(folder, name="node.log"):
    return (folder / name).read_text(encoding="utf-8").splitlines()


def test_a_traceback_stays_readable(tmp_path):
    node_log.write(tmp_path, "job [u]: reference 12\nTraceback:\n  File x\nValueError: ä\n")
    first, *more = lines(tmp_path)
    assert TIME.match(first) and first.endswith(" job [u]: reference 12")
    assert more == ["    | Traceback:", "    |   File x", "    | ValueError: ä"]
    assert stat.S_IMODE((tmp_path / "node.log").stat().st_mode) == 0o600


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_text_can_begin_a_line_as_an_entry_does(end, tmp_path):
    node_log.write(tmp_path, f"x{end}2026-11-30T00:00:00Z the administrator approved study 0000{end}")
    assert [bool(TIME.match(line)) for line in lines(tmp_path)].count(True) == 1


def test_nothing_reaches_a_terminal_but_what_prints(tmp_path):
    node_log.write(tmp_path, "a\x1b[1A\x1b[2K\x07\ud800\u202e b\nc\x00")
    text = "".join(lines(tmp_path))
    assert text.isprintable() and r"a\x1b[1A\x1b[2K\x07\ud800\u202e b" in text and text.endswith(r"c\x00")


def test_an_entry_keeps_its_beginning_and_its_end(tmp_path):
    node_log.write(tmp_path, "begin " + "x" * 10_000_000 + " ValueError: end")
    content = (tmp_path / "node.log").read_text()
    assert "begin xx" in content and content.endswith(" ValueError: end\n") and "characters left out" in content
    assert len(content) < node_log.LONGEST + 200
    # Escaping makes a character at most ten long, and a line break seven.
    node_log.write(tmp_path, "\n\U000e0001" * 1_000_000)
    assert (tmp_path / "node.log").stat().st_size < 12 * node_log.LONGEST


def test_the_file_is_rotated_and_two_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(node_log, "LARGEST", 2000)
    for number in range(100):
        node_log.write(tmp_path, f"entry {number} {'x' * 50}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["node.log", "node.log.1"]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in ("node.log", "node.log.1"))
    kept = [int(line.split()[2]) for name in ("node.log.1", "node.log") for line in lines(tmp_path, name)]
    assert kept == list(range(kept[0], 100)) and len(kept) > 20


def test_two_processes_lose_no_entry_while_the_file_is_rotated(tmp_path):
    code = (
        "import sys; from pathlib import Path; from clients import node_log; node_log.LARGEST = 40_000\n"
        "for n in range(300): node_log.write(Path(sys.argv[1]), f'{sys.argv[2]} {n} ' + 'x' * 60)"
    )
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], env=environment, cwd=tmp_path)
        for name in "ab"
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    kept = [line.split()[1:3] for name in ("node.log.1", "node.log") for line in lines(tmp_path, name)]
    for name in "ab":
        numbers = [int(number) for who, number in kept if who == name]
        assert numbers == list(range(numbers[0], 300)), "none is missing between the oldest that is kept and the last"


def test_a_full_disk_leaves_the_text_on_the_console(tmp_path, caplog):
    (tmp_path / "node.log").mkdir()
    node_log.write(tmp_path, "a\nb")
    assert "node.log cannot be written" in caplog.text and r"a\nb" in caplog.text
