"""Every command that a document or a help text shows is tried here, or named in commands.py with the reason why not."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import typer.main

sys.path.append(str(Path(__file__).parent))
from commands import COMMANDS, By, Cli, NotRun, Shell, ToTheNodes  # noqa: E402

from federation.flower.ray_cluster import RayCluster, RayNode  # noqa: E402
from polycentre import command_line  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(
    str(file.relative_to(CHECKOUT)) for folder in ("docs", "deploy") for file in (CHECKOUT / folder).rglob("*.md")
)]  # fmt: skip
OURS = r"polycentre|make|flwr|docker|\.venv/bin/\S+"
# What a line of a block of commands begins with; such a block has commands in all of its lines.
PROGRAMS = rf"{OURS}|docker-compose|ray|git|pip|python3?|ssh-keygen|sudo|export|systemctl|openssl|cp|mkdir|cd"


def help_texts(command, name="polycentre"):
    """Of a command and of all below it: its own text and those of its parameters."""
    yield command.help or ""
    yield command.epilog or ""
    yield from (getattr(parameter, "help", None) or "" for parameter in command.params)
    for inner, below in getattr(command, "commands", {}).items():
        yield from help_texts(below, f"{name} {inner}")


def commands_of(text):
    """Commands in a text in Markdown: lines of blocks, and words in backticks that begin with a program of ours."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        if kind not in ("yaml", "mermaid") and any(re.match(rf"({PROGRAMS})\s", line) for line in lines):
            # Two spaces, or a #, end the command; what follows says what it does.
            yield from (re.split(r"\s{2,}|\s+# ", line.strip())[0] for line in lines)
    for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(rf"({OURS})\s", span):
            yield " ".join(span.split())


def shown():
    """{command: where it is shown first}"""
    found = {}
    for name in DOCUMENTS:
        for command in commands_of((CHECKOUT / name).read_text(encoding="utf-8")):
            found.setdefault(command, name)
    for text in help_texts(typer.main.get_command(command_line.cli)):
        for command in commands_of(text):
            found.setdefault(command, "--help")
    return found


SHOWN = shown()


def is_name(command):
    """Whether a command of ours is only named, as in "see `polycentre deploy`": subcommands, no argument."""
    return re.fullmatch(r"polycentre( [a-z]+){1,2}( --[a-z]+| \.\.\.)?", command) and command not in COMMANDS


def command_and_options(command):
    """(the command of our command line that the words name, the options that are given to it)"""
    found = typer.main.get_command(command_line.cli)
    words = re.sub(r"[\[\]|]|\.\.\.", " ", re.split(r"(?:^|bin/)polycentre ", command)[-1]).split()
    while words and hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    return found, {word for word in words if word.startswith("--")}


# -- the table is complete -------------------------------------------------------------------------------------------


def test_every_command_that_is_shown_is_in_the_table():
    assert len(SHOWN) > 100, "the documents were not read"
    missing = {command: place for command, place in SHOWN.items() if command not in COMMANDS and not is_name(command)}
    assert not missing, "add to tests/docs/commands.py how these are run, or why not"


def test_the_table_holds_only_what_is_shown():
    assert set(COMMANDS) <= set(SHOWN)


@pytest.mark.parametrize("command", [c for c in SHOWN if re.search(r"(?:^|bin/)polycentre ", c)])
def test_every_command_and_every_option_exists(command):
    found, options = command_and_options(command)
    assert options <= {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("command", [c for c in SHOWN if c.startswith("make ")])
def test_every_target_exists(command):
    """Expanded without being run, as on a machine where everything is installed."""
    words = [*shlex.split(command), "--dry-run", "--old-file=.venv/.installed"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0 and (done.stdout or "install" in command), done.stderr


@pytest.mark.parametrize("test", sorted(
    {how.test for how in COMMANDS.values() if isinstance(how, By)} | {how.by for how in COMMANDS.values() if isinstance(how, ToTheNodes)}
))  # fmt: skip
def test_a_test_that_is_named_exists(test):
    file, _, name = test.partition("::")
    assert f"def {name}(" in (CHECKOUT / "tests" / file).read_text(encoding="utf-8")


def test_a_reason_is_a_sentence():
    assert all(len(how.reason.split()) > 3 for how in COMMANDS.values() if isinstance(how, NotRun))


# -- the commands work -----------------------------------------------------------------------------------------------


@pytest.fixture
def call(workshop, monkeypatch, capfd, patch_cache):
    """Function: call a command of ours in the workshop; returns (status, what it printed)."""
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("POLYCENTRE_CACHE", str(patch_cache))
    monkeypatch.setenv("COLUMNS", "250")

    def run(command):
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return end.value.code, "".join(capfd.readouterr())

    return run


def of_kind(kind):
    return [pytest.param(how, id=command) for command, how in COMMANDS.items() if type(how) is kind]


@pytest.mark.parametrize("how", of_kind(Cli))
def test_a_command(how, call):
    if "approved" in how.command:
        call(how.command.replace("approved", "approve") + " study.yaml")
    status, out = call(how.command)
    assert status == how.status and how.says in out, out


@pytest.mark.parametrize("how", of_kind(ToTheNodes))
def test_a_command_up_to_the_nodes(how, call, monkeypatch):
    reached = []

    def conduct(record, scenario, *_, **__):
        reached.append(scenario.name)

    monkeypatch.setattr("polycentre.run.over_nodes", lambda name: conduct)
    monkeypatch.setattr("polycentre.run.with_ray", conduct)
    monkeypatch.setattr("polycentre.run.check_machine", lambda *_, **__: None)
    monkeypatch.setattr(
        "polycentre.run.find_ray_cluster", lambda address, _: RayCluster(address, (RayNode("alpha", 8),))
    )
    status, out = call(how.command)
    assert reached == [re.search(r"run (\w+)", how.command)[1]], out


@pytest.mark.parametrize("how", of_kind(Shell))
def test_a_command_of_the_shell(how, workshop):
    for word in ("openssl", "ssh-keygen"):
        if word in how.command and shutil.which(word) is None:
            pytest.skip(f"no {word} on this machine")
    done = subprocess.run(["bash", "-c", how.command], cwd=workshop, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (workshop / how.leaves).exists(), done.stderr


def test_the_scenario_in_the_readme_can_be_read(tmp_path):
    from scenarios.reader import parse

    (text,) = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
        if "arms:" in block
    ]
    assert set(parse(text, source="README.md", base=tmp_path).arms) == {"real", "b_flow", "b_real"}


@pytest.mark.runtime
@pytest.mark.slow
def test_a_deployment_that_is_kept(workshop, tmp_path):
    """`deploy local` in one terminal; a run, its nodes, another hospital's key and its end in a second one."""
    shutil.rmtree(workshop / "deployments" / "local")

    def polycentre(*words, timeout=600):
        done = subprocess.run(
            [sys.executable, "-m", "polycentre", *map(str, words)], cwd=workshop, text=True, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout

    with (tmp_path / "local.log").open("w+") as log:
        kept = subprocess.Popen(
            [sys.executable, "-m", "polycentre", "deploy", "local", "study.yaml"], cwd=workshop, stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while not (workshop / "deployments" / "local" / "deployment.yaml").exists():
                assert kept.poll() is None and time.monotonic() < deadline, (tmp_path / "local.log").read_text()
                time.sleep(0.2)
            status, out = polycentre("run", "study.yaml", "--deployment", "local", "--out", tmp_path / "run")
            assert status == 0 and (tmp_path / "run" / "report.html").exists(), out
            status, out = polycentre("deploy", "nodes", "local")
            assert status == 0 and out.count("online") == 2, out
            status, out = polycentre("doctor", "--deployment", "local")
            assert status == 0 and "answers over TLS" in out and "nothing is missing" in out, out
            status, out = polycentre("deploy", "register", "local", workshop / "site" / "operator" / "keys" / "B.pub")
            assert status == 0 and (number := re.search(r"B: registered as node (\d+)", out)), out
            status, out = polycentre("deploy", "revoke", "local", number[1])
            assert status == 0 and "is locked out" in out, out
            kept.send_signal(signal.SIGINT)
            assert kept.wait(60) == 0, (tmp_path / "local.log").read_text()
            assert not (workshop / "deployments" / "local" / "deployment.yaml").exists()
        finally:
            for process in [*psutil.Process(kept.pid).children(recursive=True), kept] if kept.poll() is None else []:
                with suppress(psutil.Error, ProcessLookupError):
                    process.kill()
