"""Files and folders that are their owner's alone."""

import os
import stat

import pytest

from basics.private_files import OTHERS_WRITE, make_private_folder, open_private, too_open


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_what_is_made_is_private_whatever_the_umask(tmp_path):
    make_private_folder(tmp_path / "a" / "b")
    os.close(open_private(tmp_path / "file", os.O_WRONLY | os.O_CREAT))
    assert too_open(tmp_path / "a" / "b", "") == too_open(tmp_path / "file", "") == ""
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, ""),
        (0o640, "read"),
        (0o604, "read"),
        (0o620, "write"),
        (0o602, "write"),
        (0o601, "enter"),
        (0o666, "read"),
    ],
)
def test_a_mode_that_lets_others_in_is_one_line_with_its_remedy(mode, words, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    said = too_open(tmp_path / "file", "chmod 600 it")
    wanted = f"{tmp_path / 'file'} has mode {mode:04o}, so others can {words} it: chmod 600 it"
    assert said == (wanted if words else "")


def test_only_the_bits_in_question_count(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o644)
    assert too_open(tmp_path / "file", "", OTHERS_WRITE) == ""
    (tmp_path / "file").chmod(0o664)
    assert "others can write it" in too_open(tmp_path / "file", "", OTHERS_WRITE)


def test_what_is_not_there_is_not_open(tmp_path):
    assert too_open(tmp_path / "absent", "") == ""
