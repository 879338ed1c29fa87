"""What is refused, and how: for every layout."""


class FormatError(Exception):
    """The file is not what docs/format.md says; the message names file and module."""


def require(ok, message):
    if not ok:
        raise FormatError(message)


def require_keys(description, known, where):
    unknown = set(description) - set(known)
    require(not unknown, f"{where}: unknown keys {sorted(unknown)}")


def layout_of(description, where, layouts):
    """The class, of those in `layouts`, that a description names; the description is checked."""
    require(isinstance(description, dict), f"{where}: expected an object")
    name = description.get("layout")
    known = isinstance(name, str) and name in layouts
    require(known, f"{where}: unknown layout {name!r}")
    layouts[name].check(description, where)
    return layouts[name]
