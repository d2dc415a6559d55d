"""A trial: one frozen configuration. Its hash, the run_id, names its record."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bench.config.objective import canonical as canonical_objective
from bench.corpora import canonical as canonical_corpus
from bench.corpora import identity as corpus_identity
from bench.errors import BadInput, nearest, one_line
from bench.plugins import Registry, Selected, select_cell, select_regularizers, spell_regularizers

PROTOCOL = 2
"""Bumped when numbers move outside the plugins; part of every run_id (see tests/golden.json)."""


def _no_bool(value: object) -> object:
    # In lax mode pydantic would read `true` as 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool)]
Rate = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, lt=1)]

MIN_VARIABLE = 10
"""A bptt below this leaves variable windows, of 5 steps and more, no room to vary around it."""
UNREAD = {"sgd": ("nonmono",), "nt-asgd": ("lr_decay", "min_lr")}
"""Fields that are rules of the other optimizer."""


class Trial(BaseModel):
    """One training run's configuration, with the field's standard names.

    `emsize` None means nhid and `min_lr` None means lr / 4^6; both are resolved here. The paper's
    `dp` sets dropouti and dropout, its `dph` is dropouth, between layers. (Elsewhere, as in Gal's
    papers, "h" means recurrent.) `lr_decay` and `min_lr` are rules of sgd, `nonmono` is one of
    nt-asgd; under the other optimizer they do nothing and are set back to their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    corpus: str = "synthetic"
    cell: str = "lstm"
    regularizer: str = "none"
    nlayers: Int = Field(default=2, ge=1, le=100)
    nhid: Int = Field(default=650, ge=1, le=100_000)
    emsize: Annotated[Int | None, Field(ge=1, le=100_000)] = None
    tied: bool = True
    dropout: Rate = 0.5
    dropouti: Rate = 0.5
    dropouth: Rate = 0.3
    dropoute: Rate = 0.0
    locked: bool = False
    bptt: Int = Field(default=35, ge=1, le=100_000)
    variable_bptt: bool = False
    batch_size: Int = Field(default=20, ge=1, le=100_000)
    epochs: Int = Field(default=80, ge=1, le=1_000_000)
    objective: str = "nll"
    optimizer: str = "sgd"
    nonmono: Int = Field(default=5, ge=1, le=1_000_000)
    lr: Float = Field(default=20.0, gt=0)
    lr_decay: Float = Field(default=4.0, gt=1)
    min_lr: Annotated[Float | None, Field(ge=0)] = None
    clip: Float = Field(default=0.25, gt=0)
    wdecay: Float = Field(default=1e-7, ge=0)
    precision: str = "fp32"
    eval_mc: Annotated[
        Int | None, Field(ge=1, le=1_000_000), BeforeValidator(lambda v: None if v == "none" else v)
    ] = None
    rep: Int = Field(default=0, ge=0, le=1_000_000)

    BUILT: ClassVar[dict[str, tuple[str, ...]]] = {
        "optimizer": ("sgd", "nt-asgd"),
        "precision": ("fp32", "fp64", "tf32", "bf16", "fp16"),
    }

    @model_validator(mode="after")
    def _resolve(self) -> Trial:
        for name, values in self.BUILT.items():
            if getattr(self, name) not in values:
                *some, last = values
                raise ValueError(f"{name} can only be {', '.join(some)} or {last}")
        # The model is frozen to everyone else; resolving is part of its construction.
        try:
            self.__dict__["objective"] = canonical_objective(self.objective)
        except BadInput as error:
            raise ValueError(str(error)) from None
        if self.variable_bptt and self.bptt < MIN_VARIABLE:
            raise ValueError(f"variable_bptt needs a bptt of at least {MIN_VARIABLE}")
        # What the optimizer does not read is set back: it must not make a second, equal trial.
        for name in UNREAD[self.optimizer]:
            self.__dict__[name] = type(self).model_fields[name].default
        if self.emsize is None:
            self.__dict__["emsize"] = self.nhid
        if self.min_lr is None:
            self.__dict__["min_lr"] = self.lr / 4**6
        if self.min_lr is not None and self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}: no epoch would run")
        return self

    @property
    def seed(self) -> int:
        """63 bits derived from rep alone, so that trials of one rep share their draws."""
        digest = hashlib.sha256(f"rep {self.rep}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Input and output size of each layer: the last has emsize when tied, else nhid."""
        assert self.emsize is not None  # resolved above
        last = self.emsize if self.tied else self.nhid
        sizes = [self.emsize, *[self.nhid] * (self.nlayers - 1), last]
        return list(itertools.pairwise(sizes))


FIELDS: dict[str, Any] = {name: info.default for name, info in Trial.model_fields.items()}
"""Every field of a trial and its default."""


def make_trial(values: dict[str, Any], registry: Registry, where: str) -> Trial:
    """Returns the trial with every field checked and every spelling canonical.

    Raises BadInput whose line starts with `where`, the file or option the values came from.
    """
    for key in values:
        if key not in FIELDS:
            raise BadInput(
                f"{where}: a trial has no field {one_line(key, 60)!r}. {nearest(key, FIELDS)}"
            )
    try:
        trial = Trial(**values)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_error(error)}") from None
    try:
        cell, regularizers = select(trial, registry)
        spelled = {
            "corpus": canonical_corpus(trial.corpus),
            "cell": cell.spelling,
            "regularizer": spell_regularizers(regularizers),
        }
    except BadInput as error:
        raise BadInput(f"{where}: {error}", error.detail) from None
    return trial.model_copy(update=spelled)


def select(trial: Trial, registry: Registry) -> tuple[Selected, tuple[Selected, ...]]:
    """Returns the trial's cell and its regularizers; raises BadInput."""
    return select_cell(trial.cell, registry), select_regularizers(trial.regularizer, registry)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][:1])
    message = str(first["msg"]).removeprefix("Value error, ")
    if not field:
        return message
    return f"{field}: {one_line(first['input'], 60)}: {message[:1].lower()}{message[1:]}"


_identity = functools.lru_cache(maxsize=1000)(corpus_identity)  # few corpora, many trials


def canonical(trial: Trial) -> str:
    """Returns the trial as canonical JSON: fields equal to their default are left out.

    So a new field changes no id; a changed default needs a new protocol.
    """
    values = dict(vars(trial))  # they are plain already; model_dump would cost ten times as much
    values["corpus"] = _identity(trial.corpus)
    defaults = FIELDS | {"emsize": trial.nhid, "min_lr": trial.lr / 4**6}
    kept = {name: value for name, value in values.items() if value != defaults[name]}
    kept = {n: v + 0.0 if isinstance(v, float) else v for n, v in kept.items()}  # -0 is 0
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_id(trial: Trial, sources: dict[str, str], corpus_hash: str) -> str:
    """Returns the 12 hex digits that name the trial's record.

    `sources` maps `cell:NAME` and `regularizer:NAME` to the source hash of each of its plugins.
    """
    parts = [canonical(trial), json.dumps(sources, sort_keys=True), corpus_hash, str(PROTOCOL)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def sources_of(trial: Trial, registry: Registry) -> dict[str, str]:
    """Returns the source hashes that go into the trial's run_id."""
    cell, regularizers = select(trial, registry)
    return {f"{s.plugin.kind}:{s.plugin.name}": s.plugin.hash for s in (cell, *regularizers)}
