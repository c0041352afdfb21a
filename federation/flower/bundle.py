"""App bundles: which code a Flower bundle (FAB) holds, and whether it is this installation's own.

Flower runs whatever bundle the other side delivers. Its own check does not help: the list of hashes is part of the bundle
and need not name every file, and Flower recognises a bundle that it unpacked before by 8 digits of its hash. So this module
compares the whole content before a byte of it is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

from federation.wire.code_digest import package_folder

# Flower's own limit for a bundle, compressed, which a node does not check; this project's has 0.9 MiB.
_MAX_BUNDLE = 10 * 2**20
# This project's has 3 MiB in 350 files, whose directory takes 30 KiB.
_MAX_FILE = 64 * 2**20
_MAX_FILES = 20_000
_MAX_DIRECTORY = 4 * 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Flower's; others may ask for a GiB to unpack a byte
_ENCRYPTED = 0x1
# Signatures and sizes of a zip file's parts, from the end: https://pkware.cachefly.net/webdocs/APPNOTE/APPNOTE-6.3.10.TXT
_END, _END_SIZE = b"PK\x05\x06", 22
_LOCATOR_64, _LOCATOR_64_SIZE = b"PK\x06\x07", 20
_ENTRY = b"PK\x01\x02"


class BundleError(ValueError):
    """A bundle that cannot be one of ours; the text says what is wrong with it."""

    code = "bad_bundle"


def read_bundle(content: bytes) -> dict[str, bytes]:
    """Names and contents of a bundle's files.

    Raises:
        BundleError: it is not a zip file, or holds what a bundle of ours never does: two files of one name, a name that
            leads out of the folder, a link, or too much.
    """
    check_sizes(content)
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MAX_FILE:
                raise BundleError("it is larger than any bundle of ours")
            if any(entry.compress_type not in _METHODS or entry.flag_bits & _ENCRYPTED for entry in entries):
                raise BundleError("it is packed in a way that no bundle of ours is")
            files: dict[str, bytes] = {}
            known: set[str] = set()
            for entry in entries:
                name = entry.filename
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
                    raise BundleError(f"{name!r} is not a plain path")
                if (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                    raise BundleError(f"{name!r} is not a regular file")
                # On a disk that ignores case, the second of two such files would replace the first.
                if name.lower() in known:
                    raise BundleError(f"{name!r} is listed twice")
                known.add(name.lower())
                with archive.open(entry) as file:
                    data = file.read(entry.file_size + 1)
                if len(data) != entry.file_size:
                    raise BundleError(f"{name!r} does not have the size that it declares")
                files[name] = data
            return files
    except BundleError:
        raise
    except Exception as problem:  # zipfile raises whatever its parts raise
        raise BundleError(f"it is not a readable zip file ({type(problem).__name__})") from None


def check_sizes(content: bytes) -> None:
    """Refuse a bundle by its size, and by that of its directory, before it is opened: opening reads the whole directory.

    Raises:
        BundleError: it is larger than any bundle of ours, or does not end as Flower's zip files do.
    """
    if len(content) > _MAX_BUNDLE:
        raise BundleError(f"it is larger than any bundle of ours: {len(content)} bytes, and {_MAX_BUNDLE} are read")
    # Flower writes neither a comment, behind which the end would have to be searched for, nor the format beyond 4 GiB.
    end = content[-_END_SIZE:]
    if len(end) != _END_SIZE or not end.startswith(_END) or not end.endswith(b"\0\0"):
        raise BundleError("it is not a readable zip file: it does not end as Flower's do")
    if content[-_END_SIZE - _LOCATOR_64_SIZE :].startswith(_LOCATOR_64):
        raise BundleError("it is in the zip format for files beyond 4 GiB")
    size = int.from_bytes(end[12:16], "little")
    if size > _MAX_DIRECTORY or content.count(_ENTRY, max(0, len(content) - _END_SIZE - size)) > _MAX_FILES:
        raise BundleError("its directory is larger than that of any bundle of ours")


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, independent of order and compression; 64 hex digits."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def own_checkout() -> Path:
    """The folder from which this project runs."""
    return package_folder("federation").parent


def own_bundle(checkout: Path) -> dict[str, bytes]:
    """Files of the bundle that Flower builds from a checkout."""
    from flwr.cli.build import build_fab_from_files

    return read_bundle(build_fab_from_files(_candidates(checkout))[0])


def copy_candidates(checkout: Path, folder: Path) -> None:
    """Copy the files of a checkout among which Flower chooses to a folder of their own, where `flwr run` finds them at once.

    Raises:
        BundleError: it is not a checkout.
    """
    for name, content in _candidates(checkout).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def _candidates(checkout: Path) -> dict[str, bytes | Path]:
    """The files among which Flower chooses: those that `fab-include` can reach.

    Flower itself also resolves every file of .venv, 30,000 of them and nine seconds, before it leaves them out.
    """
    from flwr.cli.utils import collect_files

    if not (checkout / "pyproject.toml").is_file():
        raise BundleError(
            f"{checkout} is not a checkout of this project, which runs only from one; install it there with pip install -e ."
        )
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    include = project.get("tool", {}).get("flwr", {}).get("app", {}).get("fab-include", ["**"])
    tops = {pattern.strip("/").partition("/")[0] for pattern in include}
    if not all("/" in pattern.rstrip("/") for pattern in include) or any("*" in top for top in tops):
        return dict(collect_files(checkout))  # a pattern that files in any folder may match
    found: dict[str, bytes | Path] = {
        path.name: path for path in checkout.iterdir() if path.is_file() and not path.is_symlink()
    }
    for top in tops - set(found):
        if (checkout / top).is_symlink():
            continue  # Flower follows no link
        found |= {f"{top}/{name}": path for name, path in collect_files(checkout / top).items()}
    return found


def own_digest(checkout: Path, memory: Path | None = None) -> str:
    """Digest of the bundle that Flower builds from a checkout.

    Args:
        memory: file that keeps the digest with the names, times and sizes of the checkout's files, so that it is computed
            again only when one of them has changed.
    """
    if memory is None:
        return digest_of(own_bundle(checkout))
    state = _state(checkout)
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the first time, or written by another version
    digest = digest_of(own_bundle(checkout))
    temporary = memory.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"state": state, "digest": digest}), encoding="utf-8")
    os.replace(temporary, memory)
    return digest


def differences(theirs: Mapping[str, bytes], own: Mapping[str, bytes], at_most: int = 10) -> str:
    """Names of the files in which two bundles differ, for a log."""
    names = [f"+{name}" for name in sorted(set(theirs) - set(own))]
    names += [f"-{name}" for name in sorted(set(own) - set(theirs))]
    # Flower's list of hashes differs whenever another file does.
    names += [
        f"~{name}" for name in sorted(set(own) & set(theirs)) if own[name] != theirs[name] and name != ".info/CONTENT"
    ]
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def _state(checkout: Path) -> str:
    """A hash over the names, times and sizes of a checkout's files, without those in hidden folders."""
    digest = hashlib.sha256(str(checkout).encode())
    for folder, folders, files in os.walk(checkout):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(files):
            found = os.stat(os.path.join(folder, name), follow_symlinks=False)
            digest.update(f"{folder}/{name}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_size}\n".encode())
    return digest.hexdigest()
