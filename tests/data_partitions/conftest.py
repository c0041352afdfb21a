"""What several tests of real archives share."""

import pytest


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    """Looks at real images and their patches, once for the whole session."""
    return tmp_path_factory.mktemp("real")
