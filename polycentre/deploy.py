"""`polycentre deploy`: make certificates and keys, try a deployment on this machine, register hospitals and lock them out.

What `init` writes is sorted by who gets it:

    authority/     the authority's key, which only issues certificates: keep it offline
    superlink/     for the machine of the SuperLink: certificate, key, the operator's secret
    operator/      for the operator: the authority's certificate, the secret, deployment.yaml, the hospitals' public keys
    centres/NAME/  for a hospital: the authority's certificate, its key, centre.yaml

Longer than most files, because its commands write the same folder.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from basics.atomic_files import write_bytes, write_text
from basics.plugins import Identity, only
from basics.private_files import make_private_folder
from clients.centre_file import TRIAL_MINIMUMS, trial_release
from federation.flower.certificates import (
    AUTHORITY,
    SECRET,
    SERVER,
    create_authority,
    create_node_key,
    create_secret,
    issue_server_certificate,
    needs_renewal,
)
from federation.flower.deployment import LoopbackDeployment, TrialNode
from federation.flower.flower_command import FlowerCommand
from federation.flower.operator import DEPLOYMENTS, FILE, DeploymentFile
from federation.flower.processes import OwnProcesses, free_ports
from federation.wire.errors import StudyError
from federation.wire.names import is_plain_name

commands = typer.Typer(
    name="deploy",
    help="Certificates and keys, a deployment on this machine, and who may take part.",
    no_args_is_help=True,
)
console = Console()
CENTRE_FILE, CENTRE_KEY = "centre.yaml", "centre.key"
TRIAL_WORDS = (
    "for trials without patients' data: every study is done, every strategy and plain updates may leave, and the minimums of each "
    "centre.yaml are as low as can be"
)
# What only the hospital can fill in; until then `centre check` names it.
DATA_TEMPLATE = """# Where this hospital's images and tables are; no study chooses paths or columns. See docs/data for each source.
# data:
#   source: folder
#   path: /data
#   lesions: lesions.csv
"""

NAME = typer.Argument(help="A deployment: the name of a folder in deployments/, or its deployment.yaml.")


def prepare(
    folder: Path,
    centres: Mapping[str, Mapping[str, object]],
    hosts: Sequence[str],
    *,
    superlink: str,
    operator: str,
    days: int = 90,
) -> None:
    """Make what is missing in a folder of certificates, keys and settings; what is there and still valid is kept.

    Args:
        centres: by name, what its centre.yaml says besides its identity; an existing centre.yaml is kept.
        hosts: names and addresses of the SuperLink, for its certificate.
        superlink: host:port of the hospitals' door.
        operator: host:port of the operator's door.
        days: validity of the SuperLink's certificate.
    """
    authority, link, own = folder / "authority", folder / "superlink", folder / "operator"
    create_authority(authority)
    if needs_renewal(link / SERVER, hosts, days=min(30, days // 3)):
        issue_server_certificate(authority, link, hosts, days)
    create_secret(link / SECRET)
    own.mkdir(parents=True, exist_ok=True)
    for name in (AUTHORITY, SECRET):
        _copy(link / name, own / name)
    settings = {"address": operator, "root_certificate": AUTHORITY, "operator_secret": SECRET}
    write_text(own / FILE, yaml.safe_dump(settings, sort_keys=False))
    members = {}
    for name in centres:
        home = folder / "centres" / name
        make_private_folder(home)
        create_node_key(home / CENTRE_KEY)
        _copy(authority / AUTHORITY, home / AUTHORITY)
        if not (own / "keys" / f"{name}.pub").exists():  # a hospital may have sent its own
            _copy(home / f"{CENTRE_KEY}.pub", own / "keys" / f"{name}.pub")
        members[name] = (own / "keys" / f"{name}.pub").read_text().strip()
    for name, more in centres.items():
        file = folder / "centres" / name / CENTRE_FILE
        if not file.exists():
            identity = {"centre": name, "superlink": superlink, "root_certificate": AUTHORITY, "key": CENTRE_KEY}
            tree: dict[str, object] = {**identity, "members": members, **more}
            content = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            if tree.get("minimums") == TRIAL_MINIMUMS.model_dump(mode="json"):
                content = f"# {TRIAL_WORDS[0].upper()}{TRIAL_WORDS[1:]}.\n{content}"
            elif "data" not in tree:
                content += DATA_TEMPLATE
            # Whatever the umask: a node refuses a file to which others may write.
            write_bytes(file, content.encode(), mode=0o644)


def trial(
    processes: OwnProcesses,
    folder: Path,
    centres: Mapping[str, Mapping[str, Path]],
    log_file: Path,
    preload: bool = False,
    plugins: Iterable[Identity] = (),
) -> LoopbackDeployment:
    """A deployment on loopback whose certificates, keys and settings lie in a folder; nothing is started.

    Args:
        centres: by name, {"workspace", "cache"}.
        preload: nodes keep what their jobs import: twice the memory, and jobs start in a fraction of the time.
        plugins: those whose code may run at the nodes.
    """
    link_port, *ports = free_ports(1 + len(centres))
    address = f"127.0.0.1:{link_port}"
    for name in centres:  # ports change from start to start
        (folder / "centres" / name / CENTRE_FILE).unlink(missing_ok=True)
    plugins = list(plugins)
    with only(plugins):
        without_patients = _trial_settings(predictions=True)
    settings = {
        name: {
            "workspace": str(places["workspace"]), "cache": str(places["cache"]), "port": port,
            # All of it belongs to the user of this machine, from whom nothing needs protection.
            "approve": {"bundles": "own", "studies": "any"}, **without_patients,
            "preload": preload, "plugins": [asdict(plugin) for plugin in plugins],
            # Beside the workspace, with which it stays when this folder is made anew.
            "log": {"anchor": f"{places['workspace']}.anchor"},
        }
        for (name, places), port in zip(centres.items(), ports, strict=True)
    }  # fmt: skip
    prepare(folder, settings, ["127.0.0.1", "localhost"], superlink=address, operator=address)
    nodes = {}
    for name, places in centres.items():
        make_private_folder(places["workspace"])
        home = folder / "centres" / name
        for made in (places["workspace"], home):
            made.chmod(0o700)  # it may have been made before, as any other folder
        nodes[name] = TrialNode(home / CENTRE_FILE, home / f"{CENTRE_KEY}.pub", places["workspace"] / "supernode.log")
    return LoopbackDeployment(processes, folder / "superlink", nodes, log_file, link_port)


def _trial_settings(**release: Any) -> dict[str, object]:
    """What a trial without patients' data has in a centre.yaml, and no hospital should: everything leaves, and minimums are low."""
    return {
        "release": trial_release(**release).model_dump(mode="json", exclude_defaults=True),
        "minimums": TRIAL_MINIMUMS.model_dump(mode="json"),
    }


@commands.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write to; what is missing there is made, the rest is kept.")
    ],
    centre: Annotated[list[str], typer.Option(help="Name of a hospital, as in scenarios. Repeat for each.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address under which the SuperLink is reached. Repeat for each.")
    ],
    port: Annotated[int, typer.Option(help="The hospitals' door.")] = 8000,
    operator: Annotated[str, typer.Option(help="host:port of the operator's door.")] = "127.0.0.1:8001",
    days: Annotated[int, typer.Option(help="Validity of the SuperLink's certificate.")] = 90,
    workspace: Annotated[str, typer.Option(help="Workspace that centre.yaml names.")] = "/var/lib/polycentre",
    studies: Annotated[
        str, typer.Option(help="Studies that centre.yaml approves: `listed`, or `any` in a trial.")
    ] = "listed",
) -> None:
    """Make an authority, the SuperLink's certificate, the operator's secret, and a key and a centre.yaml for each hospital.

    For trials, and for consortia without an authority. Run again, it renews a certificate that ends within 30 days or lacks
    a name, adds new hospitals, and keeps everything else.
    """
    for name in centre:
        if not is_plain_name(name):
            raise StudyError(
                f"--centre {name!r} cannot be the name of a centre; use letters, digits, - and _, at most 64", 2
            )
    # Beside the workspace: centre.yaml is usually where the node may not write.
    log = {"anchor": f"{workspace.rstrip('/')}-anchor/{CENTRE_FILE.removesuffix('.yaml')}.anchor"}
    settings: dict[str, object] = {
        "workspace": workspace, "log": log, "approve": {"bundles": "own", "studies": studies},
    }  # fmt: skip
    if studies == "any":
        settings |= _trial_settings()
    prepare(folder, dict.fromkeys(centre, settings), host, superlink=f"{host[0]}:{port}", operator=operator, days=days)
    console.print(f"{folder}: for {', '.join(centre)}, reached as {', '.join(host)}", highlight=False, soft_wrap=True)
    if studies == "any":
        console.print(TRIAL_WORDS, highlight=False, soft_wrap=True)
    else:
        console.print("each hospital writes `data` into its centre.yaml, and `polycentre centre check` says what else is missing",
                      highlight=False, soft_wrap=True)  # fmt: skip


@commands.command()
def local(
    scenario: Annotated[str, typer.Argument(help="A scenario, whose centres get a node each.")] = "demo",
    name: Annotated[str, typer.Option(help="Name for `polycentre run --deployment`.")] = "local",
    folder: Annotated[
        Path | None, typer.Option(help="Keys, workspaces and logs; deployments/NAME when left out.")
    ] = None,
) -> None:
    """Start a SuperLink and a node per centre on this machine, with TLS and keys, and keep them until Ctrl-C."""
    from scenarios.reader import read

    centres = list(read(scenario).centres)
    folder = (folder or DEPLOYMENTS / name).absolute()
    places = {c: {"workspace": folder / "workspaces" / c, "cache": folder / "caches" / c} for c in centres}
    processes = OwnProcesses()
    file = DEPLOYMENTS / name / FILE
    stopped = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: stopped.set())
    try:
        # Nodes are registered again; the old SuperLink's database would refuse the same keys.
        for left in (folder / "superlink").glob("superlink.db*"):
            left.unlink()
        (folder / "superlink").mkdir(parents=True, exist_ok=True)
        deployment = trial(processes, folder, places, folder / "superlink.log")
        deployment.start()
        deployment.place.write(file)
        console.print(TRIAL_WORDS, highlight=False, soft_wrap=True)
        console.print(f"{', '.join(centres)} are online; logs below {folder}", highlight=False, soft_wrap=True)
        console.print(
            f"now: polycentre run {scenario} --deployment {name}      (Ctrl-C here ends all)",
            highlight=False,
            soft_wrap=True,
        )
        while not stopped.wait(1.0):
            if not deployment.link.alive:
                raise StudyError(f"the SuperLink ended; see {deployment.link.log_file}")
    finally:
        file.unlink(missing_ok=True)
        processes.stop()


@commands.command()
def register(
    deployment: Annotated[str, NAME],
    keys: Annotated[
        list[Path], typer.Argument(help="Public keys (.pub) of hospitals; the file's name is taken as theirs.")
    ],
    address: Annotated[str, typer.Option(help="host:port of the operator's door, where it differs from here.")] = "",
) -> None:
    """Register hospitals by their public keys. A key that is registered already stays as it is."""
    with flower(deployment, address) as flwr:
        for key in keys:
            try:
                number = flwr.register(key.absolute(), key.stem)
            except StudyError as problem:
                if "already in use" not in str(problem) and "already" not in str(problem).lower():
                    raise
                console.print(
                    f"{key.stem}: registered already; if `revoke` locked it out, it stays locked out, and the hospital needs a new key",
                    highlight=False,
                    soft_wrap=True,
                )
                continue
            console.print(f"{key.stem}: registered as node {number}", highlight=False)


@commands.command()
def revoke(
    deployment: Annotated[str, NAME], node: Annotated[str, typer.Argument(help="Number of the node; see `nodes`.")]
) -> None:
    """Lock a hospital out: its key is refused from then on."""
    with flower(deployment) as flwr:
        flwr.unregister(node)
    console.print(f"node {node} is locked out", highlight=False)


@commands.command()
def nodes(deployment: Annotated[str, NAME]) -> None:
    """List the registered nodes, and which of them are online."""
    with flower(deployment) as flwr:
        for node in flwr.nodes():
            console.print(
                f"{node['node-id']:>22}  {node['status']:<12} since {node['online-at'] or '-'}", highlight=False
            )


class flower:
    """Flower's command line for a deployment, in a temporary home."""

    def __init__(self, name: str, address: str = ""):
        self._place, self._processes = DeploymentFile.find(name), OwnProcesses()
        self._address = address or self._place.address

    def __enter__(self) -> FlowerCommand:
        return FlowerCommand(self._processes, self._address, self._place.root_certificate, Path("Flower's own output"))

    def __exit__(self, *_: object) -> None:
        self._processes.stop()


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its mode, completely or not at all; leave an equal copy alone."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copy(source, temporary)
    temporary.replace(target)
