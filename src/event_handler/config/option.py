"""How a setting is spelled outside: the flag, its variables and its TOML keys, derived as the plugin derives them."""

from __future__ import annotations

from dataclasses import dataclass

from event_handler.setting import Kind, Options, Setting

FORWARD = ("fluentd", "file", "elasticsearch")  # types whose sink may stand in [forward.<type>] and has flags
FLAG_TABLES = ("forward.", "teleport.", "lock.")


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting is spelled outside: `flag` without dashes, `variables` and `keys` (dotted TOML paths).

    The first variable that is set and the first key that is there wins. `unset` says what leaving the option out means,
    where the default does not. A `secret` is never shown, and of a URL its origin only.
    """

    flag: str
    kind: Kind
    variables: tuple[str, ...]
    keys: tuple[str, ...]
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    unset: str = ""
    secret: bool = False

    @property
    def key(self) -> str:
        """The TOML key that the documentation uses: dashed, in a table where the option belongs to one."""
        return next((key for key in reversed(self.keys) if key.startswith(FLAG_TABLES)), self.flag)


def option(
    flag: str,
    kind: Kind,
    help: str,
    *,
    variable: str = "",
    misspelled: bool = False,
    required: bool = False,
    unset: str = "",
    secret: bool = False,
) -> Option:
    """Derive the names as the plugin does: FDFWD_<FLAG>, the fully dotted TOML path, then the dashed one."""
    name = variable or flag.upper().replace("-", "_")
    variables = (f"FDFWD_{name}", f"FDWRD_{name}") if misspelled else (f"FDFWD_{name}",)
    sink, _, rest = flag.partition("-")
    path = f"forward.{sink}.{rest}" if sink in FORWARD else flag
    keys = [path.replace("-", "."), path]
    for table in ("teleport", "lock"):  # [teleport] refresh-enabled: the plugin ignores it, users write it
        if flag.startswith(f"{table}-"):
            keys.append(f"{table}.{flag.removeprefix(f'{table}-')}")
    return Option(flag, kind, variables, tuple(dict.fromkeys(keys)), help, required, unset=unset, secret=secret)


def setting_of(model: type[Options], field: str) -> Setting:
    """What a component says about one of its options."""
    return next(meta for meta in model.model_fields[field].metadata if isinstance(meta, Setting))
