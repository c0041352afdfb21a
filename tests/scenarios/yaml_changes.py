"""A scenario's text with some of its values changed."""

import yaml


def with_values(text, **places):
    """The text with values put at places such as `task__image_size`; None removes."""
    tree = yaml.safe_load(text)
    for path, value in places.items():
        *parents, last = path.split("__")
        place = tree
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return yaml.safe_dump(tree, sort_keys=False)
