"""The flags of the commands here: written out in full, explained by the docstrings of what they set; errors a line."""

import re
from collections.abc import Collection
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from pipelines.commands import one_line, there_is_no

from ..loop.command import say
from .meanings import default_of, meanings, own_fields, settings_within

UNKNOWN = (
    r"unrecognized arguments: (?P<key>[^\s=]+)",
    r'Parser key "(?P<group>[\w.]+)".*Option \'(?P<key>[\w.]+)\' is not accepted',
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
    r"Option '(?P<key>[\w.]+)' is not accepted",
)  # how argparse and jsonargparse say that there is no such key


class Flags(ArgumentParser):
    """
    A parser of `--key value` and `--settings.key value`, of the arguments of jsonargparse's, which makes more of its
    class for what is inside. `new_parser` makes the one of a command.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.within: list[str] = []  # keys of flags that hold several

    def add_settings(self, settings: type, name: str) -> None:
        """`--name.field` for each field of a dataclass, and what its docstrings say of it in the help."""
        self.add_class_arguments(settings, name)
        (self.groups or {})[name].title = name  # which would be the class's
        said = meanings(settings)
        for action in self._actions:
            group, _, field = action.dest.rpartition(".")
            if group == name and field in said:
                action.help = said[field]
        for field, kind in settings_within(settings).items():
            self.explain(kind, f"{name}.{field}")

    def explain(self, settings: type, place: str, without: Collection[str] = ()) -> None:
        """The keys of a flag that holds several, after all flags in the help. without: those that it does not take."""
        said = meanings(settings)
        rows = [field for field in own_fields(settings) if field.name not in without]
        self.within += [f"--{place}.{field.name}" for field in rows]
        lines = [f"  {row.name} = {default_of(row)}: {said.get(row.name, '')}" for row in rows]
        self.epilog = "\n".join([self.epilog or "", f"--{place}.KEY VALUE, of {settings.__name__}:", *lines])

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """A line, and exit code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        text = one_line(message)
        found = next(filter(None, (re.search(pattern, text) for pattern in UNKNOWN)), None)
        if found is None:
            text = plain(text)
        else:
            key = ".".join(part for part in found.groupdict().values() if part)
            flags = [*self.within, *(option for action in self._actions for option in action.option_strings)]
            text = there_is_no(key, [flag for flag in flags if flag.startswith("--")])
        say(f"{text}; {self.prog} --help lists what can be passed")
        self.exit(2)


class AsWritten(DefaultHelpFormatter):
    """Descriptions and epilogs keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.strip("\n").splitlines())


def plain(text: str) -> str:
    """What jsonargparse says of a value that is of none of the types, without the names of its own classes."""
    union = r"Does not validate against .*? Errors: - (.*) Given value type: .*? Given value: (.*)"
    text = re.sub(union, lambda found: f"{found[1].replace(' - ', ', or ')}. Got value: {found[2]}", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return text.replace("a typing.Literal", "one of ").removeprefix("Parser key ")
