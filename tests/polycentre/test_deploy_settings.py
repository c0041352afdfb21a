"""What `polycentre deploy` writes into a hospital's centre.yaml, and into that of a trial."""

import pytest
import yaml
from typer.testing import CliRunner

from clients.centre_file import TRIAL_MINIMUMS, CentreFile, CentreFileError
from clients.policy import takes_part
from polycentre.command_line import cli


def init(folder, *arguments):
    done = CliRunner().invoke(
        cli, ["deploy", "init", str(folder), "--centre", "A", "--host", "link.example", *arguments]
    )
    assert done.exit_code == 0, done.output
    return folder / "centres" / "A" / "centre.yaml", " ".join(done.output.split())


def test_a_hospital_has_to_say_where_its_data_are(tmp_path):
    path, said = init(tmp_path / "site")
    assert "each hospital writes `data` into its centre.yaml" in said
    with pytest.raises(CentreFileError, match="data: is missing; write where this hospital's images and tables are"):
        CentreFile.read(path)
    assert CentreFile.read(path, complete=False).lacks_data, "the rest of it can be checked"
    # The template becomes a section where its marks are taken away.
    head, mark, template = path.read_text().partition("# data:")
    written = "".join(line.removeprefix("# ") for line in (mark + template).splitlines(keepends=True))
    path.write_text(head + written)
    file = CentreFile.read(path)
    assert file.data == {"source": "folder", "path": "/data", "lesions": "lesions.csv"}
    assert file.minimums.training_patients == 50 and not takes_part(file.release, "fedavg_gan")


def test_a_trial_says_that_it_is_one_and_lets_everything_leave_but_patches(tmp_path):
    path, said = init(tmp_path / "site", "--studies", "any")
    first = path.read_text().splitlines()[0]
    assert (
        first.startswith("# For trials without patients' data: every study is done")
        and "for trials without patients' data" in said
    )
    file = CentreFile.read(path)
    assert file.minimums == TRIAL_MINIMUMS and file.data is None and "data" not in yaml.safe_load(path.read_text())
    assert takes_part(file.release, "md_gan") and not takes_part(file.release, "pooled")
