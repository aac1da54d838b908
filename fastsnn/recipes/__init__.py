"""The papers' rows: one YAML file each, with every hyper-parameter. Imports no torch, so that a wrong key is named at
once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..names import BACKENDS, LARGEST, RULES, through_time

__all__ = ["Recipe", "list_recipes", "read"]

FOLDER = Path(__file__).parent
NORMS = ("sws", "osr", "osr+ots", "bn", "none")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("cosine", "step")
MPDR_KEYS = ("weight", "mean", "std", "mu_m", "propagate")
STGR_KEYS = ("a2", "lam", "gam")
FTRL_KEYS = ("rho", "norm")
OF_RECIPE = {"model_options": ("rule", "norm"), "data_options": ("name", "root", "download", "steps")}

INSTEAD = {"root": "give --data-root", "download": "give --download", "name": "set the recipe's data"}


@dataclass(frozen=True)
class Recipe:
    """One row of a paper: network, data and all that its training takes.

    paper: where the row stands. accuracy: the percent it reports, None where it has none. rule: of the neurons, "empf"
    for networks of EM-PF neurons; norm: of `fastsnn.models.NORMS`, None for networks that have no choice. model, data:
    names, or "module:name"; their options: further arguments. steps: T. mode: "O" or "A". schedule "cosine" goes to 0
    over all epochs, "step" multiplies by decay_by every decay_every epochs. mse: c of `fastsnn.online.loss`. mpdr,
    stgr: arguments of `fastsnn.online.MPDR` and `fastsnn.optim.STGR`. ftrl: rho and norm of `fastsnn.online.FTRL`.
    surrogate: its name in `fastsnn.surrogate` and its arguments; None: the rule's own. init: the recipe whose weights
    it begins with; init_from: that run's folder. unstated: what the paper does not say, by field, and what stands there
    instead. root: the folder of the data.

    Raises RunError for values that do not fit together.
    """

    name: str
    paper: str
    rule: str
    model: str
    data: str
    steps: int
    mode: str
    epochs: int
    batch_size: int
    lr: float
    accuracy: float | None = None
    norm: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    data_options: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    decay_every: int | None = None
    decay_by: float | None = None
    mse: float = 0.0
    clip: float | None = None
    backward_steps: int | None = None
    mpdr: dict[str, Any] | None = None
    stgr: dict[str, Any] | None = None
    ftrl: dict[str, Any] | None = None
    surrogate: dict[str, Any] | None = None
    init: str | None = None
    init_from: str | None = None
    unstated: dict[str, str] = field(default_factory=dict)
    note: str = ""
    seed: int = 0
    device: str = "cpu"
    backend: str | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in TYPES.items():
            if type(getattr(self, name)) not in kinds:
                wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
                self._wrong(name, f"it must be of type {wanted}")
        allowed: dict[str, Iterable[Any]] = {"rule": (*RULES, "empf"), "mode": ("O", "A"), "norm": (None, *NORMS)}
        allowed |= {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "backend": (None, *BACKENDS)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                self._wrong(name, f"allowed: {', '.join(map(str, values))}")
        for name in ("steps", "epochs", "batch_size", "decay_every", "backward_steps"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= LARGEST:
                self._wrong(name, f"it must be in 1..{LARGEST}")
        if not -(2**63) <= self.seed < 2**64:
            self._wrong("seed", "it must be in -2^63..2^64-1, as torch.manual_seed takes it")
        for name, least, most in (
            ("lr", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("momentum", 0, 1),
            ("mse", 0, 1),
        ):
            if not least <= getattr(self, name) <= most or getattr(self, name) == math.inf:
                self._wrong(name, f"it must be in {least}..{most}")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                self._wrong(name, "it must be positive")
        if self.decay_by is not None and not 0 < self.decay_by <= 1:
            self._wrong("decay_by", "it must be in 0..1, what the learning rate is multiplied by")
        for name, keys in (("mpdr", MPDR_KEYS), ("stgr", STGR_KEYS), ("ftrl", FTRL_KEYS)):
            _among(f"a key of {name}", getattr(self, name) or (), keys)
        for name, own in OF_RECIPE.items():
            if name == "model_options" and ":" in self.model:
                continue  # whose arguments may mean anything
            for key in getattr(self, name).keys() & own:
                self._wrong(name, f"{key} is not of these options: " + INSTEAD.get(key, f"set the recipe's own {key}"))
        self._fit()

    def _fit(self) -> None:
        if through_time(self.rule) and (self.mode == "O" or self.backward_steps is not None):
            self._wrong("rule", "it goes back through all steps at once: use mode A without backward_steps")
        if self.rule == "empf" and (self.norm is not None or self.mpdr is not None):
            self._wrong("rule", "EM-PF networks have batch norms of their own: leave out norm and mpdr")
        if self.norm == "osr+ots" and self.rule not in ("sltt", "ottt"):
            self._wrong("norm", f"it takes rule sltt or ottt and rule is {self.rule!r}")
        given = {self.decay_every is not None, self.decay_by is not None}
        if given != {self.schedule == "step"}:
            self._wrong("schedule", "'step' takes decay_every and decay_by, 'cosine' neither")
        if self.backward_steps is not None and self.backward_steps > self.steps:
            self._wrong("backward_steps", f"it must be in 1..T = {self.steps}")
        if self.ftrl is not None and self.init is None:
            self._wrong("ftrl", "it keeps weights near those of an earlier run: name that run's recipe as init")

    def _wrong(self, name: str, why: str) -> None:
        raise RunError(f"recipe {self.name}: {name} is {getattr(self, name)!r}; {why}")

    @property
    def family(self) -> str:
        """Of the neurons' kernels."""
        return "empf" if self.rule == "empf" else "mpdr" if self.mpdr else "osr" if self.norm == "osr" else "lif"

    @property
    def missing(self) -> str | None:
        """What must be given before it can run; None where nothing is."""
        if self.ftrl is not None and self.ftrl.get("rho") is None:
            return "the paper does not say rho: give one with --set ftrl.rho=VALUE"
        if self.init is not None and self.init_from is None:
            return f"it begins with the weights of {self.init}: train that first and give its folder with --init RUN"
        return None

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """A copy with each "key=value" or "table.key=value" put in, values as YAML has them. Raises RunError."""
        values = dataclasses.asdict(self)
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise RunError(f"--set {setting} is no key=value")
            try:
                value = _yaml().safe_load(text)
            except _yaml().YAMLError as error:
                raise RunError(f"--set {setting}: {text!r} is no YAML ({' '.join(str(error).split())})") from error
            _put(values, key.strip(), value)
        return _recipe(values, self.name)


def _kinds(of: str) -> tuple[type, ...]:
    parts = [part.strip().partition("[")[0] for part in of.split("|")]
    named: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "dict": (dict,)}
    return tuple(kind for part in parts for kind in (named[part] if part in named else (type(None),)))


TYPES = {one.name: _kinds(str(one.type)) for one in dataclasses.fields(Recipe)}
NEEDED = [one.name for one in dataclasses.fields(Recipe) if one.default is MISSING and one.default_factory is MISSING]


def list_recipes() -> list[Recipe]:
    """All published rows, by name."""
    return [read(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]


def read(name: str | Path) -> Recipe:
    """The recipe of that name, or of a user's own file, named *.yaml or *.yml.

    Raises RunError for an unknown name or key, with the nearest known one, and for a file that is no recipe.
    """
    own = str(name).endswith((".yaml", ".yml"))
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if not own:
        _among("recipe", [str(name)], [path.stem for path in FOLDER.glob("*.yaml")])
    try:
        values = _yaml().safe_load(path.read_text())
    except OSError as error:
        raise RunError(f"recipe {path} cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, _yaml().YAMLError) as error:
        raise RunError(f"recipe {path} is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise RunError(f"recipe {path} is a {type(values).__name__}; it must be a table of {', '.join(NEEDED)}, ...")
    return _recipe({"name": path.stem, **values}, str(name))


def _recipe(values: dict[Any, Any], name: str) -> Recipe:
    _among(f"a key of recipe {name}", values, TYPES)
    lacking = [key for key in NEEDED if key not in values]
    if lacking:
        raise RunError(f"recipe {name} lacks {', '.join(lacking)}")
    return Recipe(**{key: _number(value) if float in TYPES[key] else value for key, value in values.items()})


def _number(value: Any) -> Any:
    """YAML takes 1e-4, without a point, for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    table, dot, inner = key.partition(".")
    _among("--set", [table], TYPES)
    if not dot:
        values[table] = value
    elif dict in TYPES[table]:
        values[table] = {**(values[table] or {}), inner: _number(value)}
    else:
        raise RunError(f"--set {key}: {table} is no table")


def _among(what: str, given: Iterable[Any], allowed: Iterable[str]) -> None:
    allowed = sorted(allowed)
    for one in given:
        if one not in allowed:
            near = get_close_matches(str(one), allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
            raise RunError(f"{what} is {one!r}; {hint}")


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise RunError("recipes need PyYAML: pip install 'fastsnn[train]'") from error
    return yaml
