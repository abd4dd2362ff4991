"""Flags of `terroir train` that come from the model of the configuration, loaded only where they are read.

The model needs pydantic, which would slow down the start of every other command.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from terroir.common.errors import InvalidArgument

if TYPE_CHECKING:
    from terroir.training.config.flags import Flag

_GIVEN: Final = "terroir.config_flags"
_PREFIX: Final = "key_"
"""Before the keys' names among a command's parameters, which have names of their own."""


def given_keys(context: typer.Context) -> dict[str, Any]:
    """The keys that flags set, unchecked, synonyms as they are; the command must be one of the classes below."""
    given: Mapping[str, Any] = context.meta.get(_GIVEN, {})
    known = _flags() if given else {}
    return {key: known[key].value(value) for key, value in given.items()}


class CommandWithKeys(TyperCommand):
    """A command that takes every key of the configuration as a flag."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters, and the keys that none of them is."""
        return _joined(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the keys out of what the function is called with."""
        with _Understood(self, ctx):
            rest = super().parse_args(ctx, _with_dashes(args))
        _set_aside(ctx)
        return rest


class GroupWithKeys(TyperGroup):
    """A group that runs without a command, and takes every key as a flag then."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters, and the keys unless a command follows at once."""
        own = super().get_params(ctx)
        return own if ctx.meta.get(f"{_GIVEN}.command_follows") else _joined(own)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the keys out of what the function is called with."""
        ctx.meta[f"{_GIVEN}.command_follows"] = bool(args) and args[0] in self.commands
        with _Understood(self, ctx):
            rest = super().parse_args(ctx, _with_dashes(args))
        _set_aside(ctx)
        return rest


class _Understood:
    """Turns the error of an unknown option into one that names the nearest, as for keys of the file."""

    def __init__(self, command: Any, context: Any) -> None:
        self._command, self._context = command, context

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # typer carries a click of its own, whose errors it does not export.
        if kind is None or kind.__name__ != "NoSuchOption":
            return
        name = str(getattr(error, "option_name", ""))
        known = [option for parameter in self._command.get_params(self._context) for option in parameter.opts]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InvalidArgument(
            f"no such option {name}; the nearest is {nearest} (all: {self._context.command_path} --help)",
            reason="CONFIG_KEY_UNKNOWN",
            field=name.lstrip("-").replace("-", "_")[:80],
            metadata={"nearest": nearest},
        ) from error


def _with_dashes(arguments: list[str]) -> list[str]:
    """`--network_dim`, as sd-scripts has it, is `--network-dim`."""
    parts = [argument.partition("=") for argument in arguments]
    return [
        f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else argument
        for argument, (name, equals, value) in zip(arguments, parts, strict=True)
    ]


def _set_aside(context: Any) -> None:
    names = [name for name in context.params if name.startswith(_PREFIX)]
    given = {name.removeprefix(_PREFIX): context.params.pop(name) for name in names}
    before = context.meta.get(_GIVEN, {})
    context.meta[_GIVEN] = {**before, **{key: value for key, value in given.items() if value not in (None, (), [])}}


def _joined(own: list[Any]) -> list[Any]:
    taken = {option for parameter in own for option in parameter.opts}
    return [*own, *(parameter for parameter in _parameters() if taken.isdisjoint(parameter.opts))]


@cache
def _flags() -> Mapping[str, Flag]:
    from terroir.training.config.flags import flags  # pydantic is loaded with it

    return {flag.spelling: flag for flag in flags()}


@cache
def _parameters() -> tuple[Any, ...]:
    """The flags as typer's own parameters: those of a function that has them all."""

    def keys(**_: Any) -> None: ...

    keys.__signature__ = inspect.Signature([_parameter(flag) for flag in _flags().values()])  # type: ignore[attr-defined]  # read by typer
    carrier = typer.Typer(add_completion=False)
    carrier.command()(keys)
    return tuple(p for p in typer.main.get_command(carrier).params if str(p.name).startswith(_PREFIX))


def _parameter(flag: Flag) -> inspect.Parameter:
    option = typer.Option(
        f"{flag.name}/--no-{flag.name[2:]}" if flag.is_switch else flag.name,
        help=flag.help,
        metavar=flag.metavar or None,
        rich_help_panel=flag.section,
        show_default=False,
        hidden=not flag.help,
    )
    kind: Any = bool if flag.is_switch else list[str] if flag.is_repeated else str
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(
        f"{_PREFIX}{flag.spelling}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
