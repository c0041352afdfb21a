"""A field that holds settings of an entry of a table, chosen by one of its keys: a centre's `source`, an arm's `strategy`.

The entries of the project are a tagged union of pydantic's, whose errors name the key. Those of plug-ins join it when a scenario
names them, so that reading a scenario imports no other plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Union

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator

from basics.plugins import Table


def chosen_by(key: str, table: Table[Any], schema: Callable[[Any], Any]) -> Any:
    """The type of such a field.

    Args:
        key: the field of the value that has the entry's name.
        schema: an entry to its pydantic model.
    """
    own = tuple(schema(entry) for entry in table.builtin.values())

    def tagged(*more: Any) -> Any:
        return Annotated[Union[own + more], Field(discriminator=key)]  # noqa: UP007

    @cache
    def with_plugin(name: str) -> TypeAdapter[Any]:
        return TypeAdapter(tagged(schema(table[name])))

    def validated(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        name = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        if isinstance(name, str) and name not in table.builtin and name in table:
            return with_plugin(name).validate_python(value)
        return handler(value)

    return Annotated[tagged(), SerializeAsAny(), WrapValidator(validated)]
