"""Load the YAML file of a model: layers merged, names checked, objects built by HyperPyYAML.

:func:`load_hparams` merges the file, its bases and the overrides (:mod:`korser.config.layers`), and collects what is
wrong with names and values, all of it in one error. :func:`build` leaves out what is not used, then resolves the
references and calls HyperPyYAML. The other two loaders skip a part of that: :func:`resolve_hparams` builds only some
keys, and :func:`load_resolved` reads the text that a run recorded, which may be somebody else's.
"""

from __future__ import annotations

import io
import math
import textwrap
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from korser.config.arguments import find_invalid_arguments
from korser.config.imports import explain_failure, refuse_namesakes
from korser.config.layers import Layers, merge_layers
from korser.config.names import find_unknown_names, find_unknown_overrides
from korser.config.nodes import build_entries, compose, get_value
from korser.config.objects import find_change, has_state, state_of
from korser.config.schema import WITHOUT_EFFECT, TrainSettings, find_invalid_values
from korser.config.sources import named_sources
from korser.config.trust import RestrictedLoader, find_foreign
from korser.config.usage import find_unused, remove_unused
from korser.utils.errors import UserError, raise_faults
from korser.utils.fingerprint import digest
from korser.utils.importable import make_importable
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES, short_path

__all__ = ["HParams", "build", "find_foreign_names", "load_hparams", "load_resolved", "resolve_hparams"]


class HParams(Mapping[str, Any]):
    """The settings of a YAML file, with its objects built. Read-only: :meth:`replace` changes settings.

    An object that is changed in place is refused when it is trained.
    """

    name: str  # the file's name without its ending: the name of the model in tables and figures
    folders: list[str]  # of the file and of its bases: modules in them can be imported
    text: str  # the layers merged and all references resolved, as YAML: loading it builds the same objects again
    sources: dict[str, dict[str, str]]  # digests of code and files, see korser.config.sources.named_sources

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        name: str,
        folders: list[str],
        text: str,
        layers: Layers | None = None,
        restricted: bool = False,
    ) -> None:
        vars(self).update(  # attributes are read-only, too
            _values=dict(values),
            _built=state_of(values),
            _layers=layers,
            _restricted=restricted,
            _used=False,
            name=name,
            folders=folders,
            text=text,
            sources=named_sources(text),  # now: an editor may change the files while this process runs
        )

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"HParams({self.file!r}, run {self.run_name})"

    def _refuse(self, given: Any = None, *others: Any, **settings: Any) -> NoReturn:
        keys = [given] if isinstance(given, str) else [*(given if isinstance(given, Mapping) else ()), *settings]
        key = str(keys[0]) if keys else "lr"
        change = f"{key}=..." if key.isidentifier() else f"{{'{key}': ...}}"
        raise UserError(
            f"settings are read-only, since other settings and objects depend on '{key}': use replace(), as in "
            f"h = h.replace({change})"
        )

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def replace(self, overrides: Mapping[str, Any] | None = None, **more: Any) -> HParams:
        """Load the file again with further overrides, so that everything that depends on them follows.

        See :func:`load_hparams`; keywords are for keys without a dot.

        Examples
        --------
        >>> load_hparams("mel_stl.yaml").replace({"backbone.bands.dropout": 0.5}, lr=0.01)["lr"]
        0.01
        """
        if self._layers is None:
            raise UserError(f"the settings of {self.name} were recorded by a run: load its YAML file to change them")
        given, before = _joined(overrides, more), self._layers.overrides
        if isinstance(given, Mapping):  # in the order in which they were given: the last one counts
            given = {**{key: value for key, value in before.items() if key not in given}, **given}
        return load_hparams(self._layers.path, given)

    def with_unused_objects(self) -> HParams:
        """Return these settings the first time, later the same with objects built anew.

        Training changes weights and the epoch counter, so that no two runs can share them.

        Raises
        ------
        UserError
            If an object has been changed since it was built, which the run would not record.
        """
        if self._used:
            return self.rebuilt()
        changed = find_change(self._built, state_of(self._values))
        if changed is not None:
            raise UserError(
                f"{changed} was changed after the settings were loaded, and no run would record that: use replace() to "
                "change settings (h = h.replace() builds the objects anew)"
            )
        vars(self)["_used"] = True
        return self

    def rebuilt(self) -> HParams:
        """Return the same settings with all objects built anew."""
        return _load(
            self.text,
            name=self.name,
            folders=self.folders,
            source=self.name,
            layers=self._layers,
            restricted=self._restricted,
        )

    @property
    def file(self) -> str:
        """The settings file, as the ``korser`` command takes it."""
        name = f"{self.name}.yaml"
        found = [path for folder in self.folders if (path := Path(folder) / name).exists()]
        return short_path(found[0]) if found else name

    @property
    def run_name(self) -> str:
        """Name of the run's directory: the model's name and the digest."""
        return f"{self.name}-{self.digest()}"

    def digest(self) -> str:
        """Return eight hexadecimal digits that identify the settings and the code and files that they name."""
        return digest([self.settings_digest(), self.sources], length=8)

    def settings_digest(self, *, without: Collection[str] = ()) -> str:
        """Return the digest of the settings, without some and those that have no effect on the results."""
        root = compose(self.text, self.name)
        left_out = {*WITHOUT_EFFECT, *without}
        root.value = [(key, value) for key, value in root.value if key.value not in left_out]
        return digest(yaml.serialize(root))


def load_hparams(path: str | Path, overrides: Mapping[str, Any] | None = None, **more: Any) -> HParams:
    """Load the YAML file of a model over its base, with overrides over both.

    A file names the one it builds on as ``base: other.yaml``, next to it or in korser's ``hparams/``. A top-level key
    of the upper layer replaces that of the lower one completely; a dotted key (``frontend.n_mels: 80``) replaces one
    value in it. Names are checked at every depth: keys against the base and korser's settings, arguments of ``!new:``
    and ``!name:`` against signatures. A new key must be used by a ``!ref`` or an alias, be ``!apply:`` or
    ``description``, or begin with an underscore.

    Parameters
    ----------
    path : str or Path
        A file, or the name of one that korser ships with.
    overrides : dict, optional
        ``{key: value}``; keys may be dotted, and strings are read as YAML (``"3"`` is a number,
        ``"!new:my.Class {a: 1}"`` an object). A :class:`korser.Frontend`, and a class with arguments as
        ``functools.partial(my.Class, a=1)``, is written as the YAML that builds it again
        (:func:`korser.config.objects.object_node`).
    **more
        The same, for keys without a dot.

    Raises
    ------
    UserError
        If a file cannot be read or parsed, names are unknown (one line each), or an object cannot be built or written.

    Examples
    --------
    >>> load_hparams("mel_stl.yaml", {"frontend.n_mels": 64}, lr=1e-2)["frontend"].output_size
    64
    """
    overrides = _joined(overrides, more)
    layers = merge_layers(path, overrides)
    errors = layers.errors + find_unused(layers) + find_unknown_overrides(layers, TrainSettings)
    hparams = build(layers, errors + find_invalid_values(layers))
    for key, value in overrides.items():
        if not any(other.startswith(f"{key}.") for other in overrides):
            _require_equal(key, value, hparams.get(key))
    return hparams


def resolve_hparams(path: str | Path, overrides: Mapping[str, Any] | None = None, keys: Iterable[str] = ()) -> HParams:
    """Resolve the settings and build only the objects of some keys: fast, and no weights are loaded.

    The settings hold these keys only, whose names are not checked; ``text`` and ``digest`` are those of all settings.

    Raises
    ------
    UserError
        If a file cannot be read or a key cannot be set.
    """
    layers = merge_layers(path, overrides)
    raise_faults(layers.errors)
    remove_unused(layers.root)
    text = _resolve(layers.text, layers.path)
    values = build_entries([(key, value) for key, value in compose(text, layers.path).value if key.value in keys])
    return HParams(values, name=layers.path.stem, folders=layers.folders, text=text)


def find_foreign_names(text: str, source: Path | str) -> list[str]:
    """Return the names in recorded settings that need trust (:mod:`korser.config.trust`); nothing is built."""
    roots = [compose(text, source)]
    try:
        roots.append(ruamel.yaml.YAML().compose(text))  # by which HyperPyYAML resolves references: may call functions
    except ruamel.yaml.error.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {one_line(error)}") from error
    return list(dict.fromkeys(name for root in roots for name in find_foreign(root)))


def load_resolved(text: str, *, name: str, folders: Iterable[str], source: Path | str, trusted: bool) -> HParams:
    """Load what :attr:`HParams.text` recorded.

    If it is trusted, modules in ``folders``, those of the settings files, may be imported and anything may be built;
    otherwise there must be no :func:`find_foreign_names`.
    """
    folders = list(folders) if trusted else []
    for folder in folders:
        make_importable(folder)
    foreign = [] if trusted else find_foreign_names(text, source)
    if foreign:
        raise UserError(f"{source}: {', '.join(foreign)}: needs trust (--trust)")
    raise_faults(find_unknown_names(compose(text, source), source, folders))  # code may have been moved since
    return _load(text, name=name, folders=folders, source=source, restricted=not trusted)


def build(layers: Layers, errors: list[str]) -> HParams:
    """Build the objects of merged layers, unless there are errors or names that do not exist."""
    raise_faults(errors + find_unknown_names(layers.root, layers.path, layers.folders))
    remove_unused(layers.root)
    return _load(layers.text, name=layers.path.stem, folders=layers.folders, source=layers.path, layers=layers)


def _load(
    text: str,
    *,
    name: str,
    folders: list[str],
    source: Path | str,
    layers: Layers | None = None,
    restricted: bool = False,
) -> HParams:
    resolved = _resolve(text, source)
    faults = find_invalid_arguments(compose(resolved, source), compose(text, source))
    raise_faults([f"{source}: {fault}" for fault in faults])
    loader = RestrictedLoader if restricted else ruamel.yaml.Loader
    try:
        values = load_hyperpyyaml(resolved, loader=loader)
    except FAILURES as error:  # whatever a constructor raises, the settings caused it
        key = _find_failing_key(resolved, source, loader)
        where = f" (in {_shown(text, key)})" if key else ""
        cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
        if isinstance(cause, UserError):
            raise UserError(f"{cause}{where}") from error
        _refuse_invalid_frontend(resolved, source, loader)
        raise UserError(f"{source}: {explain_failure(error)}{where}") from error
    refuse_namesakes(folders)  # among the modules that were imported only now
    return HParams(values, name=name, folders=folders, text=resolved, layers=layers, restricted=restricted)


def _resolve(text: str, source: Path | str) -> str:
    try:
        return resolve_references(io.StringIO(text)).getvalue()
    except Exception as error:  # whatever ruamel or a reference's arithmetic raises
        raise UserError(f"{source}: {explain_failure(error)}") from error


def _joined(overrides: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Join overrides and keywords; what is no mapping is left for :func:`merge_layers` to refuse."""
    return {**overrides, **more} if isinstance(overrides, Mapping) else overrides or more


def _require_equal(key: str, given: Any, built: Any) -> None:
    """Refuse an object that is another than what its class and arguments, which are all that is recorded, build."""
    changed = find_change(state_of(given, key), state_of(built, key)) if has_state(given) else None
    if changed is not None:
        raise UserError(
            f"{changed} was changed after {type(given).__name__} was built, and only its class and arguments are "
            "recorded: give it as it was built, with an argument for what differs"
        )


def _find_failing_key(resolved: str, source: Path | str, loader: type[ruamel.yaml.Loader]) -> str | None:
    """Return the first top-level key that cannot be built, by bisection; None if there are no keys."""
    entries = compose(resolved, source).value

    def fails(n: int) -> bool:
        try:
            build_entries(entries[:n], loader)
        except FAILURES:
            return True
        return False

    return entries[bisect_left(range(1, len(entries)), True, key=fails)][0].value if entries else None


def _shown(text: str, key: str) -> str:
    """Return a key and its value as written, in one line, and what else to write if it is to be called later."""
    node = get_value(compose(text, key), key)
    value = yaml.serialize(node, allow_unicode=True, width=math.inf).strip().removesuffix(" ''")
    called = key in ("split", "head", "opt_class", "lr_scheduler") and node.tag.startswith("!new:")
    return textwrap.shorten(f"{key}: {value}", 200, placeholder=" ...") + ("; write !name: for !new:" if called else "")


def _refuse_invalid_frontend(resolved: str, source: Path | str, loader: type[ruamel.yaml.Loader]) -> None:
    """Report an invalid frontend itself rather than the error of an object built upon it."""
    from korser.frontend.validation import require_frontend  # here: runs are named without torch

    entries = [(key, value) for key, value in compose(resolved, source).value if key.value == "frontend"]
    try:
        found = build_entries(entries, loader)
    except FAILURES:  # it cannot be built: the caller reports that
        return
    try:
        for frontend in found.values():
            require_frontend(frontend)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
