"""`polycentre centre`: what an administrator sees, and exit statuses; a small TLS server plays the SuperLink."""

import http.server
import ipaddress
import json
import re
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clients.approval import Approvals
from clients.centre_file import CentreFile
from clients.ledger import Ledger
from clients.ledger_line import line_hash
from clients.policy import PAUSED
from federation.wire.job import Job, Reply, canonical_json
from federation.wire.units import scenario_digest
from polycentre import command_line
from scenarios import reader


def certificate_of(key, *, days=365, since=-1):
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since)).not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def authority(tmp_path):
    """(certificate file, key file) of a server on this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "server.key").write_bytes(pem(key))
    (tmp_path / "server.crt").write_bytes(certificate_of(key).public_bytes(serialization.Encoding.PEM))
    return tmp_path / "server.crt", tmp_path / "server.key"


@pytest.fixture
def superlink(authority):
    """Function: a server that answers /health over TLS, its clock `ahead` seconds ahead; returns host:port."""
    running = []

    def start(ahead=0.0, status=200):
        class Health(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response_only(status if self.path == "/health" else 404)
                self.send_header("Date", formatdate(datetime.now(UTC).timestamp() + ahead, usegmt=True))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"localhost:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def file(centre_file, authority, tmp_path):
    """Function: a centre.yaml of centre B with a real key and certificate."""

    def make(**settings):
        path = centre_file(tmp_path / "B", "B", **settings)
        key = ec.generate_private_key(ec.SECP384R1())
        (path.parent / "node.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        )
        (path.parent / "ca.crt").write_bytes(authority[0].read_bytes())
        return path

    return make


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Function: call `polycentre centre ARGUMENTS`; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["polycentre", "centre", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return end.value.code, out, err

    return call


@pytest.fixture
def scenario(tmp_path, tiny_text):
    """The tiny scenario without its pooled arm, as a file."""
    tree = yaml.safe_load(tiny_text)
    del tree["arms"]["pooled"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return tmp_path / "study.yaml"


def lines(out, kind):
    return [line.removeprefix(kind).strip() for line in out.splitlines() if line.startswith(kind)]


# -- check ---------------------------------------------------------------------------------------------------------------


def test_a_node_that_is_ready(run, file, superlink):
    data = {"source": "phantom", "patients": 6, "scanner": "film"}
    status, out, _ = run("check", file(superlink=superlink(), data=data))
    assert status == 0 and lines(out, "PROBLEM") == []
    found = "\n".join(lines(out, "OK"))
    for part in ("secp384r1, mode 0600", "CN=test authority, until ", "answers over TLS", "GiB free", "the SuperLink's",
                 "data: 24 images of 6 patients; lesions: "):  # fmt: skip
        assert part in found
    assert lines(out, "NOTE") == ["no study is approved yet: every job will be refused"]


@pytest.mark.parametrize(
    ("ahead", "kind", "words"),
    [(-90, "PROBLEM", "ahead of"), (120, "NOTE", "behind"), (400, "PROBLEM", "behind")],
)
def test_a_clock_that_is_off_is_named_with_its_size(ahead, kind, words, run, file, superlink):
    status, out, _ = run("check", file(superlink=superlink(ahead)))
    (line,) = [line for line in lines(out, kind) if "clock is" in line]
    found = re.search(r"clock is (\d+) s ([a-z ]+) the SuperLink's", line)
    assert abs(int(found[1]) - abs(ahead)) <= 2 and found[2] == words
    assert ("refuses this node" in line) is (kind == "PROBLEM") and status == (1 if kind == "PROBLEM" else 0)


def test_a_superlink_that_another_authority_signed_is_not_trusted(run, file, superlink):
    path = file(superlink=superlink())
    other = ec.generate_private_key(ec.SECP256R1())
    (path.parent / "ca.crt").write_bytes(certificate_of(other).public_bytes(serialization.Encoding.PEM))
    status, out, _ = run("check", path)
    (line,) = lines(out, "PROBLEM")
    assert status == 1 and "does not come from the authority in" in line


def test_a_superlink_that_is_not_there_or_none(run, file, superlink):
    status, out, _ = run("check", file(superlink="localhost:9"))
    assert status == 1 and "SuperLink: localhost:9 does not answer" in out
    status, out, _ = run("check", file(superlink=superlink(status=404)))
    assert status == 1 and "answers with status 404; is it a SuperLink?" in out


@pytest.mark.parametrize(
    ("days", "since", "kind", "words"),
    [
        (-1, -9, "PROBLEM", "has expired on "),
        (9, -1, "NOTE", "expires on "),
        (99, 9, "PROBLEM", "is not valid before "),
    ],
)
def test_certificates_and_their_days(days, since, kind, words, run, file):
    path = file(superlink="localhost:9")
    key = ec.generate_private_key(ec.SECP256R1())
    (path.parent / "ca.crt").write_bytes(
        certificate_of(key, days=days, since=since).public_bytes(serialization.Encoding.PEM)
    )
    _, out, _ = run("check", path)
    assert [
        line for line in lines(out, kind) if words in line and line.startswith("root_certificate: CN=test authority")
    ]


def test_a_key_of_another_kind_and_a_certificate_that_is_none(run, file):
    path = file(superlink="localhost:9")
    (path.parent / "node.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    (path.parent / "ca.crt").write_text("nothing")
    _, out, _ = run("check", path)
    problems = "\n".join(lines(out, "PROBLEM"))
    assert (
        "cannot be read as an OpenSSH ECDSA key" in problems
        and "ssh-keygen -t ecdsa" in problems
        and "holds no certificate" in problems
    )


def test_data_that_cannot_be_read(run, file, tmp_path):
    data = {"source": "folder", "path": str(tmp_path / "nowhere")}
    status, out, _ = run("check", file(superlink="localhost:9", data=data))
    assert status == 1 and any(line.startswith("data: ") and "nowhere" in line for line in lines(out, "PROBLEM"))


def test_what_makes_a_node_less_careful_is_said(run, file):
    approve = {"studies": "any", "bundles": ["ab" * 32]}
    _, out, _ = run("check", file(superlink="localhost:9", approve=approve, data=None))
    notes = "\n".join(lines(out, "NOTE"))
    assert (
        "approve.studies is any" in notes
        and "1 bundles other than this installation's" in notes
        and "data: not set" in notes
    )


def test_a_file_with_faults_is_status_2_and_one_line_a_fault(run, file):
    path = file(porto=3)
    path.write_text(path.read_text().replace("centre: B", "centre: ../B"))
    for command in ("check", "run", "pause", "approved", "log"):
        status, _, err = run(command, path)
        assert status == 2 and len(err.strip().splitlines()) == 2 and "porto: unknown key" in err


def test_a_node_with_a_problem_is_not_started(run, file):
    path = file(superlink="localhost:9")
    (path.parent / "node.key").write_bytes(b"nothing")
    status, out, err = run("run", path)
    assert status == 2 and "the node cannot be started; correct what is marked PROBLEM" in err


# -- plan, approve, revoke -------------------------------------------------------------------------------------------------


def test_the_plan_shows_what_would_leave_field_by_field(run, file, scenario, tmp_path):
    status, out, _ = run("plan", file(), scenario, "--out", tmp_path / "plan.md")
    page = (tmp_path / "plan.md").read_text()
    study = reader.read(scenario)
    assert status == 0 and str(tmp_path / "plan.md") in out
    assert page.startswith("# What the study 'tiny' would take out of centre B\n")
    assert "**Yes**, once the study is approved" in page
    assert (
        re.search(r"\| train a generator \| 1 \| [1-9][0-9]* in training \| ", page)
        and "| survey of the data | 1 | all | none | how many there are of what |" in page
    )
    assert "`weights.*` | weights | a generator of synthetic images; a model can remember" in page
    assert "receive" not in page and "### train a classifier" not in page, "B is no receiver"
    assert scenario_digest(reader.resolved_yaml(study)) in page
    assert page.rstrip().endswith(f"centre.yaml {scenario}`") and "polycentre centre approve" in page
    assert "predictions of single images" in page
    status, out, _ = run("plan", file(), scenario)
    assert status == 0 and "What the study 'tiny' would take out of centre B" in out


def test_the_plan_says_what_the_policy_would_refuse(run, file, scenario, tmp_path):
    hours = {"from": "19:00", "until": "07:00", "zone": "UTC"}
    path = file(
        release={"strategies": ["local"], "epsilon_at_most": 3, "largest_message_mib": 0.001}, working_hours=hours
    )
    run("plan", path, scenario, "--set", "arms.pooled={strategy: pooled, centres: [B]}", "--out", tmp_path / "plan.md")
    page = (tmp_path / "plan.md").read_text()
    assert "**No.** Its policy refuses 4 parts" in page
    for part in ("strategy `pooled` moves real patches", "strategy `one_shot` is not in release.strategies",
                 "release.epsilon_at_most is 3, and this version trains without differential privacy",
                 "train a generator: a message out has about", "19:00 to 07:00 UTC only"):  # fmt: skip
        assert part in page
    assert "**images of patients**: never, a deployed node refuses" in page
    assert "--set arms.pooled" in page


def test_approving_and_revoking(run, file, scenario):
    path = file()
    digest = scenario_digest(reader.resolved_yaml(reader.read(scenario)))
    status, out, _ = run("approve", path, scenario)
    approvals = Approvals(CentreFile.read(path).workspace)
    assert approvals.digests() == [digest]
    approval = approvals.read(digest)
    assert approval.resolved == reader.resolved_yaml(reader.read(scenario))
    assert timedelta(days=89, hours=23) < approval.until - datetime.now(UTC) <= timedelta(days=90)
    until = f"{approval.until:%Y-%m-%d %H:%M} UTC"
    first, second = out.strip().splitlines()
    assert (status, first) == (0, f"{digest}  tiny: approved until {until}")
    assert re.fullmatch("it may be given [1-9][0-9]* answers at most", second)
    _, out, _ = run("approved", path)
    assert out.strip() == f"{digest}  tiny, until {until}, 0 answers given"
    run("approve", path, scenario, "--set", "seed=9")
    assert len(approvals.digests()) == 2, "another seed is another study"
    run("approve", path, scenario, "--days", "7")
    assert approvals.read(digest).until < approval.until and len(approvals.digests()) == 2
    (CentreFile.read(path).workspace / "studies" / digest / "answers.json").unlink()
    _, out, _ = run("approved", path)
    assert "no longer knows what it has answered" in out and "approve --again" in out
    assert run("approve", path, scenario, "--again")[0] == 0 and approvals.answered(digest) == 0
    status, _, err = run("revoke", path, "")
    assert status == 2 and "2 approved studies have the hash" in err
    status, out, _ = run("revoke", path, digest[:12])
    assert status == 0 and digest not in approvals.digests()
    status, _, err = run("revoke", path, digest)
    assert status == 2 and "0 approved studies" in err


def test_a_study_without_this_centre_is_not_approved(run, file, scenario):
    path = file()
    path.write_text(path.read_text().replace("centre: B", "centre: Z"))
    for command in ("plan", "approve"):
        status, _, err = run(command, path, scenario)
        assert status == 2 and "scenario 'tiny' has no centre 'Z'; its centres: A, B, C" in err


def test_approving_tells_what_is_refused_all_the_same(run, file, scenario):
    _, out, _ = run("approve", file(release={"strategies": ["local"]}), scenario)
    assert "note: the policy of this centre.yaml still refuses a part of this study: strategy `one_shot`" in out


# -- pause, log --------------------------------------------------------------------------------------------------------------


def test_pause_and_resume(run, file):
    path = file()
    flag = CentreFile.read(path).workspace / PAUSED
    assert run("pause", path)[0] == 0 and flag.exists()
    assert run("pause", path)[0] == 0 and flag.exists()
    assert run("resume", path)[0] == 0 and not flag.exists()
    assert run("resume", path)[0] == 0


def test_the_log_verifies_and_sums_up(run, file):
    path = file()
    centre = CentreFile.read(path)
    centre.workspace.mkdir()
    status, out, _ = run("log", path)
    assert status == 0 and "0 lines in" in out
    ledger = Ledger.of(centre)
    for number in range(3):
        job = Job("s", f"u{number}", "B", "learn", {}, scenario="ab" * 32, strategy="local")
        ledger.record(job, Reply.error(job, "ok" if number else "paused"), "B")
    status, out, _ = run("log", path, "--tail", "2")
    assert status == 0 and f"head {ledger.verify().head}: write it down" in out
    assert [line.split()[0] for line in out.splitlines() if "unit u" in line] == ["2", "3"]
    rows = [
        [cell.strip() for cell in line.strip("│┃ ").split("│")] for line in out.splitlines() if line.startswith("│")
    ]
    assert [row[:4] for row in rows] == [["ab" * 8, "learn", "ok", "2"], ["ab" * 8, "learn", "paused", "1"]]
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"paused", b"paysed"))
    status, out, _ = run("log", path)
    assert status == 1 and "PROBLEM line 1 (entry 1) was edited" in out


def filled(path, lines=3):
    ledger = Ledger.of(CentreFile.read(path))
    ledger.path.parent.mkdir(exist_ok=True)
    for number in range(lines):
        job = Job("s", f"u{number}", "B", "learn", {}, scenario="ab" * 32, strategy="local")
        ledger.record(job, Reply.error(job, "ok"), "B")
    return ledger


def test_a_record_that_was_cut_off_is_named_and_acknowledged(run, file):
    path = file(superlink="localhost:9")
    ledger = filled(path)
    assert run("log", "verify", path)[0] == 0
    assert run("acknowledge", path)[1].startswith("nothing to acknowledge")
    ledger.path.write_bytes(b"".join(ledger.path.read_bytes().splitlines(keepends=True)[:-1]))
    status, out, _ = run("log", "verify", path)
    assert status == 1 and "PROBLEM the record ends with entry 2, and its anchor knows entry 3" in out
    assert run("log", path)[0] == 1
    assert any(line.startswith("record: the record ends with") for line in lines(run("check", path)[1], "PROBLEM"))
    status, out, err = run("run", path)
    assert status == 2 and "correct what is marked PROBLEM" in err
    status, out, _ = run("acknowledge", path)
    assert status == 0 and out.startswith("acknowledged: the record ends with entry 2")
    status, out, _ = run("log", "verify", path)
    assert status == 0 and "NOTE entry 3, " in out and "was cut off at its end, or replaced" in out


def test_log_takes_verify_and_one_file(run, file):
    for words in (("verfy", file()), ("verify", "verify", file())):
        status, _, err = run("log", *words)
        assert status == 2 and "write the centre's settings, or verify and the settings" in err


def test_what_a_job_said_is_shown_as_text(run, file):
    """Lines of an older version hold it as it came."""
    path = file()
    ledger = filled(path, 1)
    entry = json.loads(ledger.path.read_text())
    for key in ("received", "replies", "note"):
        del entry[key]
    entry |= {"scenario": "\x1b[1A\x1b[2K[/x]\n  9 2026", "kind": "[/y]\x1b[2K"}
    entry["hash"] = line_hash(entry)
    ledger.path.write_text(canonical_json(entry) + "\n")
    ledger.anchor.path.unlink()
    status, out, _ = run("log", path)
    assert status == 0 and "\x1b" not in out and "[/y]" in out and "\n  9 2026" not in out


def test_an_open_workspace_is_refused_by_every_command(run, file):
    path = file(superlink="localhost:9")
    filled(path)
    workspace = CentreFile.read(path).workspace
    workspace.chmod(0o750)
    for command in ("check", "run", "log"):
        status, _, err = run(command, path)
        assert status == 2
        assert f"workspace: {workspace} has mode 0750, so others can read it: chmod -R go-rwx {workspace}" in err


def test_a_syslog_that_cannot_be_reached_is_a_problem_of_the_check(run, file, tmp_path):
    status, out, _ = run("check", file(superlink="localhost:9", log={"syslog": str(tmp_path / "none.sock")}))
    assert any(line.startswith("log.syslog: ") and "cannot be reached" in line for line in lines(out, "PROBLEM"))
