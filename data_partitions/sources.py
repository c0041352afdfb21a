"""The table of data sources: a scenario selects one by its name, in the field `source` of a centre's `data`.

A new source is one file and one line here. The file holds a subclass of `DataSource` (of `ArchiveSource` for files on
disk) whose field `source` has its name as the default. Each import below is an entry of the table; what a scenario
accepts and what error messages list follow from it. The order is that of the messages.
"""
# ruff: noqa: F401

from __future__ import annotations

from inspect import isabstract
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SerializeAsAny, ValidationError

from basics.plugins import Table, subclass_of
from data_partitions.source import DataSource

# isort: off
from data_partitions.phantom.phantom import PhantomSource
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.inbreast import InbreastSource
from data_partitions.archives.bcdr import BcdrSource
from data_partitions.archives.cbis_ddsm import CbisDdsmSource
from data_partitions.archives.ddsm import DdsmSource
from data_partitions.archives.omi_db import OmiDbSource
from data_partitions.archives.cdd_cesm import CddCesmSource
from data_partitions.archives.isic import IsicSource
from data_partitions.archives.mini_mias import MiniMiasSource
from data_partitions.archives.medmnist import MedmnistSource
# isort: on


def _name(kind: type[DataSource]) -> str:
    return str(kind.model_fields["source"].default)


# Name: class of each source above. `data_partitions.SOURCES` has one more, which deals out any of these.
_BUILTIN: dict[str, type[DataSource]] = {
    _name(kind): kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, DataSource) and not isabstract(kind)
}
is_source = subclass_of(DataSource, named=_name)
WHOLE_SOURCES: Table[type[DataSource]] = Table("sources", _BUILTIN, is_source)


def any_source(value: Any) -> Any:
    """The settings of any source of the table, by its field `source`."""
    if isinstance(value, BaseModel):
        return value
    name = value.get("source") if isinstance(value, dict) else value
    if not isinstance(name, str) or name not in WHOLE_SOURCES or not isinstance(value, dict):
        raise ValueError(f"source is {name!r}; known sources: {', '.join(WHOLE_SOURCES)}; {WHOLE_SOURCES.hint}")
    try:
        return WHOLE_SOURCES[name].model_validate(value)
    except ValidationError as problem:
        keys = ", ".join(WHOLE_SOURCES[name].model_fields)
        raise ValueError("; ".join(_worded(error, keys) for error in problem.errors(include_url=False))) from None


def _worded(error: Any, keys: str) -> str:
    """One fault of a source's settings: the key, and what would be right."""
    where = ".".join(str(key) for key in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; known keys: {keys}"
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text[0].lower() + text[1:]}" if where else text


# A field that holds any of them, where pydantic's own union would word its errors for the programmer.
AnySource = Annotated[SerializeAsAny[DataSource], BeforeValidator(any_source)]
