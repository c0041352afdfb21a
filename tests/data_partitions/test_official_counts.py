"""What was found in an archive, in the names that its authors' and the papers' counts have."""

import pytest
from archives import write_bcdr, write_cbis_ddsm, write_cdd_cesm, write_ddsm, write_inbreast

from data_partitions import SOURCES
from data_partitions.archives.official_counts import counts_of, whole_archive


def found(source, folder, **settings):
    return counts_of(SOURCES[source](path=folder, **settings).load("A", 0))


def test_lesions_and_masses_are_counted_in_all_images(tmp_path):
    # Four of eight patients have, in both views of the left breast, a mass, a cluster and a calcification of a single point.
    counts = found("inbreast", write_inbreast(tmp_path))
    assert (counts["images"], counts["lesions"], counts["masses"]) == (32, 16, 8)
    assert "lesions" not in found("inbreast", write_inbreast(tmp_path / "healthy", patients=1))


def test_tables_are_counted_one_by_one(tmp_path):
    counts = found("cbis_ddsm", write_cbis_ddsm(tmp_path), abnormalities="mass")
    assert counts["mass train: rows"] == counts["mass train: lesions"] == 5  # four patients, one with two
    assert not any(name.startswith("calcification") for name in counts)


@pytest.mark.parametrize(
    ("source", "write"),
    [("inbreast", write_inbreast), ("bcdr", write_bcdr), ("cbis_ddsm", write_cbis_ddsm), ("ddsm", write_ddsm),
     ("cdd_cesm", write_cdd_cesm)],
)  # fmt: skip
def test_every_official_count_has_the_name_of_one_that_is_found(tmp_path, source, write):
    folder = tmp_path / "archive"
    write(folder)
    one = SOURCES[source](path=folder)
    assert set(one.official) | set(getattr(one, "in_papers", {})) <= set(found(source, folder))


def test_official_counts_are_of_the_tables_that_are_read(tmp_path):
    masses = SOURCES["cbis_ddsm"](path=tmp_path, abnormalities="mass")
    assert masses.official == {"mass train: rows": 1318, "mass test: rows": 378}
    assert len(SOURCES["cbis_ddsm"](path=tmp_path).official) == 4
    assert SOURCES["cbis_ddsm"](path=tmp_path, abnormalities="calcification").in_papers == {}


def test_the_whole_archive_is_no_part_of_it(tmp_path):
    part = SOURCES["folder"](path=tmp_path, centre="x", images=30)
    assert (whole_archive(part).centre, whole_archive(part).images) == (None, None)
    kind = SOURCES["cdd_cesm"](path=tmp_path, images="subtracted")
    assert whole_archive(kind) == kind, "its `images` is a kind of image and no number"
