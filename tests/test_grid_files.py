"""Grid files that cannot be: each is refused in one line that names file, value and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.config import expand, load_grid
from bench.errors import BadInput
from bench.plugins import find


def refused(tmp_path: Path, text: str) -> str:
    (tmp_path / "made-up.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        expand(load_grid("made-up.yaml"), find())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nmae: x", "no grid has a key 'nmae'. Did you mean name?"),
        ("axis: {}", "no grid has a key 'axis'. Did you mean axes?"),
        ("name: x", "an empty grid; give base, axes, blocks or include"),
        ("blocks: []", "an empty grid; give base, axes, blocks or include"),
        ("include: []", "an empty grid; give base, axes, blocks or include"),
        ("axes: {nhid: []}", "axis nhid is empty, so the grid would be; give it a value"),
        ("axes: {nhid: 8}", "axis nhid must be a list, as in [none, ar]"),
        ("axes: {nhid: {a: 1}}", "axis nhid must be a list"),
        ("axes: {size: [8]}", "axis size: a trial has no field 'size'."),
        ("axes: {nhid: [[8, 9]]}", "axis nhid: nhid must be one value; several go under axes"),
        ("axes: {size: [{nhid: [8]}]}", "axis size: nhid must be one value"),
        ("axes: {nhid: [8, 16, 8]}", "axis nhid: the value 8 is there twice"),
        ("axes: {nhid: [8, 8.0]}", "is there twice"),
        ("axes: {s: [{nhid: 8, lr: 1}, {lr: 1, nhid: 8}]}", "is there twice"),
        ("axes: {cell: [lstm, lstm]}", "axis cell: the value lstm is there twice"),
        ("axes: {nhid: [8], s: [{nhid: 9}]}", "axis s: the axis nhid sets nhid, too"),
        ("axes: {rep: [1, 2]}", "axis rep: rep is counted by the harness; write reps: N"),
        ("base: {rep: 1}", "base: rep is counted by the harness; write reps: N"),
        ("base: {nhidd: 8}", "base: a trial has no field 'nhidd'. Did you mean nhid?"),
        ("base: {nhid: [8, 9]}", "base: nhid must be one value; several go under axes"),
        ("base: [nhid]", "base must be a mapping"),
        ("base:", "base must be a mapping"),
        ("base: {}\naxes: 3", "axes must be a mapping"),
        ("base: {}\nreps: 0", "reps: 0 must be a whole number from 1"),
        ("base: {}\nreps: 2.5", "reps: 2.5 must be a whole number from 1"),
        ("base: {}\nreps: true", "reps: True must be a whole number from 1"),
        ("base: {}\nreps: five", "reps: five must be a whole number from 1"),
        ("base: {}\nreps: 99999999999", "reps: 99999999999 must be a whole number from 1"),
        ("reps: 5\ninclude: [ptb-small]", "reps counts for base, axes and blocks here"),
        ("base: {}\nname: ../x", "the name '../x' must be 1 to 100 letters, digits, or . _ -"),
        ("base: {}\nname: a/b", "the name 'a/b' must be"),
        ("base: {}\nname: ''", "the name '' must be"),
        ("base: {}\nname: 3", "the name '3' must be"),
        ("base: {}\nname: [x]", "must be 1 to 100 letters"),
        ("base: {}\nname: " + "x" * 300, "must be 1 to 100 letters"),
        ("base: {}\nname: 'a\\nb'", "must be 1 to 100 letters"),
        ("base: {}\nkeep_weights: all", "keep_weights: all must be none or best"),
        ("base: {}\nkeep_weights: [best]", "must be none or best"),
        ("blocks: {a: 1}", "blocks must be a list"),
        ("blocks: [3]", "block 1 must be a mapping"),
        ("blocks: [{base: {}}, {axis: {}}]", "block 2: no grid has a key 'axis'. Did you mean"),
        ("blocks: [{include: [quick]}]", "block 1: no grid has a key 'include'."),
        ("blocks: [{base: {}}]\naxes: {nhid: [8]}", "axes and blocks exclude each other"),
        ("include: ptb-small", "include must be a list of presets or files"),
        ("include: [3]", "include must be a list of presets or files"),
        ("include: [ptb-smal]", "no preset is called 'ptb-smal' (a file's name ends in"),
        ("include: [absent.yaml]", "absent.yaml: no such file"),
        ('include: ["a\\0b.yaml"]', ": no such file"),
        ("include: [made-up.yaml]", "made-up.yaml: includes itself: "),
        ("base: {dropout: 1.5}", "dropout: 1.5: input should be less than 1"),
        ("base: {nhid: 0}", "nhid: 0: input should be greater than or equal to 1"),
        ("base: {epochs: ten}", "epochs: ten: input should be a valid integer"),
        ("base: {lr: .nan}", "lr: nan: input should be a finite number"),
        ("base: {tied: on}\naxes: {lr: [1, .inf]}", "lr: inf: input should be a finite number"),
        ("base: {cell: lstmm}", "cell: no cell is called 'lstmm'. Did you mean lstm"),
        ("base: {regularizer: ar:alpha=-1}", "regularizer ar:alpha=-1: ValueError: alpha must not"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    message = refused(tmp_path, text)
    assert line in message, message


def test_too_many_trials_are_refused_before_they_are_made(tmp_path: Path) -> None:
    axes = "".join(
        f"  {n}: [{', '.join(map(str, range(1, 200)))}]\n" for n in ("nhid", "lr", "bptt")
    )
    line = refused(tmp_path, f"axes:\n{axes}reps: 10000\n")
    assert line == "made-up.yaml: 78,805,990,000 trials are too many (at most 200,000)"


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text("include: [../below/../made-up.yaml]")
    line = refused(tmp_path, "include: [below/a.yaml]")
    assert "includes itself: " in line
    (tmp_path / "link.yaml").symlink_to("made-up.yaml")
    assert "includes itself: " in refused(tmp_path, "include: [link.yaml]")


def test_a_long_chain_and_a_bomb_of_includes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.config.grid.MAX_BLOCKS", 300)
    for n in range(60):
        (tmp_path / f"f{n}.yaml").write_text(f"include: [f{n + 1}.yaml]")
    assert "includes more than 20 files deep" in refused(tmp_path, "include: [f0.yaml]")
    (tmp_path / "f0.yaml").write_text("base: {}")
    for n in range(1, 8):
        (tmp_path / f"f{n}.yaml").write_text(f"include: [{', '.join([f'f{n - 1}.yaml'] * 50)}]")
    assert "more than 300 blocks" in refused(tmp_path, "include: [f7.yaml]")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("ptb-smal", "(a file's name ends in .yaml). Did you mean ptb-small?"),
        ("", "no preset is called ''"),
        ("absent.yaml", "absent.yaml: no such file"),
        ("absent/quick", "absent/quick: no such file"),
        ("x" * 5000 + ".yaml", "File name too long"),
        ("./", "./: no such file"),
    ],
)  # fmt: skip
def test_a_source_that_is_not_there_is_one_line(source: str, line: str) -> None:
    with pytest.raises(BadInput) as error:
        load_grid(source)
    assert line in str(error.value)


def test_a_file_may_have_any_name_when_it_says_its_own(tmp_path: Path) -> None:
    def named(stem: str, text: str) -> Any:
        (tmp_path / f"{stem}.yaml").write_text(text)
        return load_grid(f"./{stem}.yaml").name

    assert named("my grid", "{name: mine, base: {}}") == "mine"
    with pytest.raises(BadInput, match="the name 'my grid' must be"):
        named("my grid", "base: {}")
