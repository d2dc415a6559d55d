"""A trial: its defaults, what it refuses, its canonical form, its run_id and its seed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.config import FIELDS, Trial, canonical, make_trial, run_id, sources_of
from bench.errors import BadInput
from bench.plugins import find

REGISTRY = find()
SOURCES = {"cell:lstm": "0123456789abcdef", "regularizer:none": "fedcba9876543210"}
CORPUS = "ab" * 32


def trial(**values: Any) -> Trial:
    return make_trial(values, REGISTRY, "here")


def identity(**values: Any) -> str:
    """The run_id under fixed sources and text, so that it moves with no plugin."""
    return run_id(trial(**values), SOURCES, CORPUS)


def test_defaults_are_the_designs() -> None:
    assert trial().model_dump() == {
        "corpus": "synthetic",
        "cell": "lstm",
        "regularizer": "none",
        "nlayers": 2,
        "nhid": 650,
        "emsize": 650,
        "tied": True,
        "dropout": 0.5,
        "dropouti": 0.5,
        "dropouth": 0.3,
        "dropoute": 0.0,
        "locked": False,
        "bptt": 35,
        "variable_bptt": False,
        "batch_size": 20,
        "epochs": 80,
        "objective": "nll",
        "optimizer": "sgd",
        "nonmono": 5,
        "lr": 20.0,
        "lr_decay": 4.0,
        "min_lr": 20 / 4**6,
        "clip": 0.25,
        "wdecay": 1e-7,
        "precision": "fp32",
        "eval_mc": None,
        "rep": 0,
    }
    assert set(FIELDS) == set(Trial.model_fields)
    assert trial(nhid=10).emsize == 10
    assert trial(lr=8).min_lr == 8 / 4096


def test_a_trial_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        trial().nhid = 3


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("nhid", 0, "nhid: 0: input should be greater than or equal to 1"),
        ("nhid", -1, "nhid: -1: "),
        ("nhid", 2.5, "nhid: 2.5: "),
        ("nhid", True, "nhid: True: must be a number, not true or false"),
        ("nhid", "ten", "nhid: ten: input should be a valid integer"),
        ("nhid", None, "nhid: None: "),
        ("nhid", [1], "nhid: [1]: "),
        ("nhid", 10**30, "nhid: 1000000000000000000000000000000: "),
        ("nhid", 10**4000, "nhid: 1000"),
        ("emsize", 0, "emsize: 0: "),
        ("nlayers", 0, "nlayers: 0: "),
        ("bptt", 0, "bptt: 0: "),
        ("batch_size", -1, "batch_size: -1: input should be greater than or equal to 1"),
        ("epochs", "ten", "epochs: ten: input should be a valid integer"),
        ("epochs", 0, "epochs: 0: "),
        ("dropout", 1.5, "dropout: 1.5: input should be less than 1"),
        ("dropout", 1, "dropout: 1: input should be less than 1"),
        ("dropouti", -0.1, "dropouti: -0.1: input should be greater than or equal to 0"),
        ("dropouth", "half", "dropouth: half: input should be a valid number"),
        ("dropout", float("nan"), "dropout: nan: "),
        ("lr", float("nan"), "lr: nan: input should be a finite number"),
        ("lr", "nan", "lr: nan: input should be a finite number"),
        ("lr", float("inf"), "lr: inf: "),
        ("lr", 10**400, "lr: 1000"),
        ("lr", 0, "lr: 0: input should be greater than 0"),
        ("lr", False, "lr: False: must be a number, not true or false"),
        ("lr_decay", 1, "lr_decay: 1: input should be greater than 1"),
        ("min_lr", -1, "min_lr: -1: "),
        ("clip", 0, "clip: 0: input should be greater than 0"),
        ("wdecay", -1e-7, "wdecay: -1e-07: "),
        ("tied", "maybe", "tied: maybe: input should be a valid boolean"),
        ("tied", 2, "tied: 2: input should be a valid boolean"),
        ("optimizer", "adam", "optimizer can only be sgd or nt-asgd"),
        ("precision", "fp8", "precision can only be fp32, fp64, tf32, bf16 or fp16"),
        ("corpus", 3, "corpus: 3: input should be a valid string"),
        ("corpus", "ptbb", "corpus 'ptbb' is unknown. Did you mean ptb?"),
        ("cell", ["lstm"], "cell: ['lstm']: input should be a valid string"),
        ("cell", "lstn", "cell: no cell is called 'lstn'. Did you mean lstm"),
        ("regularizer", True, "regularizer: True: input should be a valid string"),
        ("regularizer", "ar:alpa=1", "ar has no hyper-parameter 'alpa'. Did you mean alpha?"),
        ("nhidd", 3, "a trial has no field 'nhidd'. Did you mean nhid?"),
        ("zoneout", 0.5, "a trial has no field 'zoneout'. Known: "),
        ("", 3, "a trial has no field ''. Known: "),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(field: str, value: Any, line: str) -> None:
    with pytest.raises(BadInput) as error:
        make_trial({field: value}, REGISTRY, "grid.yaml")
    assert str(error.value).startswith("grid.yaml: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 1000


# --- one identity for equal trials ----------------------------------------------------------------

EQUAL: dict[str, list[dict[str, Any]]] = {
    "numbers": [
        {"lr": 2, "nhid": 10},
        {"nhid": 10, "lr": 2.0},
        {"lr": "2", "nhid": "10"},
        {"lr": "2.0", "nhid": 10.0},
        {"lr": "2e0", "nhid": "10"},
    ],
    "defaults": [
        {},
        {"nhid": 650, "emsize": 650},
        {"min_lr": 20 / 4**6, "emsize": None},
        {"tied": True, "dropout": 0.5, "rep": 0},
        {"tied": "true", "wdecay": "0.0000001"},
        {"corpus": "synthetic:train=200000:seed=0"},
        {"corpus": "synthetic:valid=20000"},
        {"optimizer": "sgd", "precision": "fp32", "cell": "lstm", "regularizer": "none"},
        {"locked": False, "dropoute": 0, "eval_mc": None, "objective": "nll", "nonmono": 5},
        {"variable_bptt": "false", "dropoute": "-0.0"},
    ],
    "objectives": [{"objective": "augmented"}, {"objective": "augmented:tau=20.0:gamma=5e-1"}],
    "zeros": [{"wdecay": 0, "dropout": "0"}, {"wdecay": -0.0, "dropout": "-0.0"}],
    "derived": [{"nhid": 8, "lr": 1}, {"nhid": 8, "emsize": 8, "lr": 1, "min_lr": 1 / 4096}],
    "sums": [
        {"regularizer": "ar+tar"},
        {"regularizer": "tar+ar"},
        {"regularizer": "tar:beta=1+ar:alpha=2.0:of=dropped"},
        {"regularizer": "ar:layers=last:alpha=2+tar:form=mean_square"},
    ],
    "options": [{"regularizer": "ar:of=raw:alpha=1"}, {"regularizer": "ar:alpha=1e0:of=raw"}],
    "text": [
        {"corpus": "synthetic:train=5000:seed=1"},
        {"corpus": "synthetic:seed=1:train=5000:valid=500"},
    ],
    "folders": [{"corpus": "folder:path=/one/place"}, {"corpus": "folder:path=elsewhere"}],
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_trials_have_one_run_id(name: str) -> None:
    assert len({identity(**values) for values in EQUAL[name]}) == 1


def test_a_folders_path_is_neither_in_the_id_nor_in_the_seed_but_its_text_is() -> None:
    one, other = (trial(corpus=f"folder:path={path}") for path in ("/a", "/b"))
    assert (one.corpus, other.corpus) == ("folder:path=/a", "folder:path=/b")
    assert canonical(one) == canonical(other) == '{"corpus":"folder"}'
    assert one.seed == other.seed
    assert run_id(one, SOURCES, "text one") != run_id(one, SOURCES, "text two")


CHANGED: dict[str, Any] = {
    "corpus": "synthetic:seed=1",
    "cell": "gru",
    "regularizer": "ar",
    "nlayers": 3,
    "nhid": 651,
    "emsize": 600,
    "tied": False,
    "dropout": 0.4,
    "dropouti": 0.4,
    "dropouth": 0.4,
    "dropoute": 0.1,
    "locked": True,
    "bptt": 36,
    "variable_bptt": True,
    "batch_size": 21,
    "epochs": 79,
    "objective": "augmented",
    "optimizer": "nt-asgd",
    "nonmono": 4,
    "lr": 19,
    "lr_decay": 3,
    "min_lr": 0.001,
    "clip": 10,
    "wdecay": 0,
    "precision": "fp64",
    "eval_mc": 10,
    "rep": 1,
}


def test_every_field_changes_the_run_id() -> None:
    assert set(CHANGED) == set(FIELDS), "a new field belongs into this table"
    changed = {
        name: identity(**{"optimizer": "nt-asgd" if name == "nonmono" else "sgd", name: value})
        for name, value in CHANGED.items()
    }
    assert len({*changed.values(), identity()}) == len(changed) + 1


@pytest.mark.parametrize(
    "sources",
    [
        {**SOURCES, "cell:lstm": "0123456789abcdee"},
        {**SOURCES, "regularizer:none": ""},
        {"cell:lstm": SOURCES["cell:lstm"]},
        {"cell:lstm": SOURCES["regularizer:none"], "regularizer:none": SOURCES["cell:lstm"]},
    ],
)
def test_the_plugins_sources_the_text_and_the_protocol_change_the_run_id(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity()
    assert run_id(trial(), sources, CORPUS) != before
    assert run_id(trial(), SOURCES, CORPUS[:-1]) != before
    assert run_id(trial(), dict(reversed(SOURCES.items())), CORPUS) == before
    monkeypatch.setattr("bench.config.trial.PROTOCOL", 10**6)
    assert identity() != before


def test_the_sources_are_those_of_the_plugins_in_use() -> None:
    sources = sources_of(trial(cell="gru", regularizer="tar+ar"), REGISTRY)
    assert sources == {
        "cell:gru": REGISTRY["cell"]["gru"].hash,
        "regularizer:ar": REGISTRY["regularizer"]["ar"].hash,
        "regularizer:tar": REGISTRY["regularizer"]["tar"].hash,
    }


def test_the_canonical_form_holds_what_differs_from_the_defaults_alone() -> None:
    assert canonical(trial()) == "{}"
    values = {"nhid": "8", "lr": 1, "regularizer": "tar+ar:alpha=1", "rep": 3, "tied": False}
    assert json.loads(canonical(trial(**values))) == {
        "nhid": 8,
        "lr": 1.0,
        "regularizer": "ar:alpha=1+tar:beta=1",
        "rep": 3,
        "tied": False,
    }


GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({}, "ddf575af6e78"),
    ({"nhid": 1500, "dropout": 0.65, "dropouti": 0.65}, "b28bf56a4cff"),
    ({"nhid": 200, "emsize": 100}, "96d8e1b3bbb8"),
    ({"corpus": "ptb", "cell": "gru"}, "91f1e1edf229"),
    ({"corpus": "wikitext-2", "cell": "rnn_tanh", "nlayers": 1}, "f07995df2de0"),
    ({"corpus": "folder:path=/x"}, "53834bd20f87"),
    ({"corpus": "synthetic:train=5000:seed=3"}, "57911859efe8"),
    ({"regularizer": "ar"}, "eb233a13e147"),
    ({"regularizer": "ar:alpha=1"}, "e64f72ffa1ea"),
    ({"regularizer": "tar:beta=8"}, "17815a339458"),
    ({"regularizer": "ar:alpha=2+tar:beta=1"}, "372918c4d808"),
    ({"regularizer": "ar:of=raw:layers=all:form=norm"}, "f4b5228a2ce1"),
    ({"regularizer": "tar:beta=0.00001"}, "3793935e2206"),
    ({"tied": False, "bptt": 70, "batch_size": 40}, "9477b57ff16f"),
    ({"lr": 1, "lr_decay": 2, "min_lr": 0.1}, "88d0e28c03fc"),
    ({"lr": 0.1, "epochs": 6}, "64121867c44a"),
    ({"clip": 10, "wdecay": 0}, "6bdab8f8cb82"),
    ({"wdecay": 1.2e-6}, "19d1ff931762"),
    ({"precision": "fp64"}, "de577d391aec"),
    ({"dropout": 0, "dropouti": 0, "dropouth": 0}, "8306bdc3a6f8"),
    ({"rep": 4}, "c1c67d232fe0"),
]


@pytest.mark.parametrize(("values", "golden"), GOLDEN, ids=[str(v) for v, _ in GOLDEN])
def test_golden_run_ids(values: dict[str, Any], golden: str) -> None:
    # Records are found by these names. When one moves, everybody's records are lost to them.
    assert identity(**values) == golden


def test_the_seed_depends_on_the_repetition_alone() -> None:
    seeds = [trial(rep=rep).seed for rep in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds[0] == 8100951512838698448
    for name, value in CHANGED.items():
        if name != "rep":
            assert Trial.model_validate({name: value}).seed == seeds[0]
