"""The operator's side of a deployment, as far as it works without a SuperLink."""

import fcntl

import pytest

from federation.flower.operator import DeploymentFile, Operator
from federation.wire.errors import StudyError


def test_only_one_run_at_a_time_uses_a_deployment(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    operator = Operator(tmp_path, tmp_path, DeploymentFile("127.0.0.1:1", secret, secret))
    with secret.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match=r"another run is using the SuperLink at 127\.0\.0\.1:1") as caught:
            operator.start()
        assert caught.value.exit_status == 2
    for _ in range(2):  # its own lock is given back
        with pytest.raises(StudyError, match="127.0.0.1:1") as caught:
            operator.start()
        assert "another run" not in str(caught.value)
        operator.stop()
