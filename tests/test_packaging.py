"""The wheel outside the repository, the pinned set, the tree, and what `--help` imports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERBS = ["grid", "train", "report", "plugins", "corpora", "store", "generate"]
# Put together here, so that this file does not hold what it looks for.
HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "download.py" + "torch.org",
    "registry.npm" + "js",
]
HOSTS += ["deb." + "debian.org"]
FOLDERS = ["/" + name + "/" for name in ("work", "root", "farm", "opt/pypi", "opt/wheels")]

wheel_group = pytest.mark.xdist_group("wheel")  # one worker builds it, once


def run(
    *argv: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, so that no build/ is left here and none is picked up."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    copy.mkdir()
    for name in tree_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    (copy / "results" / "runs").mkdir(parents=True)
    (copy / "results" / "runs" / "0123456789ab.parquet").write_bytes(b"PAR1")
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=copy)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (copy / "dist").glob("*.whl")
    return built


@wheel_group
def test_wheel_holds_three_folders_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "bench",
        "cells",
        "regularizers",
        f"recurrent_bench-{PROJECT_VERSION}.dist-info",
    }
    for folder in ("bench", "cells", "regularizers"):
        there = {n for n in tree_files() if n.startswith(f"{folder}/")}
        assert there and there <= set(names), there - set(names)
        assert {n for n in names if n.startswith(f"{folder}/")} == there


@wheel_group
def test_wheel_names_the_console_script(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        assert "bench = bench.__main__:main" in archive.read(name).decode()


@wheel_group
def test_wheel_holds_no_path_of_this_machine(wheel: Path) -> None:
    places = [str(ROOT), str(wheel.parent.parent), sys.prefix, *FOLDERS]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not [place for place in places if place.encode() in content], name


@wheel_group
def test_wheel_works_elsewhere_beside_a_foreign_cells_package(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
    done = run(*pip, "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("cells", "regularizers"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text("raise RuntimeError('a foreign package')\n")
    env = {"PYTHONPATH": str(site), "HOME": str(tmp_path), "BENCH_DATA": ""}
    where = run(sys.executable, "-c", "import bench; print(bench.__file__)", cwd=here, env=env)
    assert where.stdout.strip() == str(site / "bench" / "__init__.py"), where.stderr

    listing = run(sys.executable, "-m", "bench.plugins", "list", cwd=here, env=env)
    assert listing.returncode == 0, listing.stderr
    for name in ("lstm", "gru", "rnn_tanh", "none", "ar", "tar"):
        assert re.search(rf"\b{name}\b", listing.stdout), listing.stdout

    words = ["grid", "quick", "--dry-run", "--results", str(tmp_path / "results")]
    dry = run(sys.executable, "-m", f"bench.{words[0]}", *words[1:], cwd=here, env=env)
    assert dry.returncode == 0, dry.stderr
    assert re.search(r"\b[0-9a-f]{12}\b", dry.stdout) and "lstm" in dry.stdout, dry.stdout
    assert sorted(path.name for path in here.iterdir()) == ["cells", "regularizers"]


# --- the pinned set -------------------------------------------------------------------------------


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        # A name and a public version: no address, local suffix, marker, option or hash.
        assert re.fullmatch(r"[a-z0-9-]+==\d+[0-9a-z.]*", line), line
    pairs = [line.split("==") for line in pins]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: version for name, version in pairs}


def asked() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *extras["dev"])]


def test_lock_satisfies_pyproject() -> None:
    pins = locked()
    for one in asked():
        version = pins[canonicalize_name(one.name)]
        assert one.specifier.contains(version), f"{one} but {version}"
    (ray,) = [
        r for r in map(Requirement, PROJECT["optional-dependencies"]["aws"]) if r.name == "ray"
    ]
    assert ray.specifier.contains(pins["ray"])


def test_lock_covers_what_those_need() -> None:
    """The closure over what is installed here, extras and markers included."""
    pins = locked()
    todo, seen = [(each.name, tuple(each.extras)) for each in asked()], set()
    while todo:
        name, extras = todo.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        assert canonicalize_name(name) in pins, name
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            applies = not need.marker or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            if applies:
                todo.append((need.name, tuple(need.extras)))
    assert len(seen) > len(asked())


def test_setup_installs_once(tmp_path: Path) -> None:
    """`make -n`: pip runs when a file that decides is newer than the stamp, and only then."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    first = run("make", "-n", "setup", cwd=tmp_path)
    lines = [line for line in first.stdout.splitlines() if "pip" in line]
    assert len(lines) == 3, first.stdout + first.stderr
    assert "^torch==" in lines[0] and "requirements.lock" in lines[1]
    assert "--no-deps" in lines[2] and "--editable" in lines[2]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".setup").touch()
    assert "pip" not in run("make", "-n", "setup", cwd=tmp_path).stdout
    later = (tmp_path / ".venv" / ".setup").stat().st_mtime + 10
    os.utime(tmp_path / "requirements.lock", (later, later))
    assert "pip" in run("make", "-n", "setup", cwd=tmp_path).stdout


# --- the tree -------------------------------------------------------------------------------------


def tree_files() -> list[str]:
    """What git has or would take: tracked and not ignored, as long as it exists."""
    done = run(
        *["git", "-c", "safe.directory=*", "ls-files"],
        *["--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return sorted({name for name in done.stdout.splitlines() if (ROOT / name).is_file()})


def version() -> str:
    text = (ROOT / "bench" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert match
    return match[1]


PROJECT_VERSION = version()


def foreign(text: str) -> list[str]:
    """Registry hosts and absolute paths of one machine."""
    found = [host for host in HOSTS if host in text.lower()]
    return found + [
        folder for folder in FOLDERS if re.search(rf"(?<![\w.~${{}}-]){re.escape(folder)}", text)
    ]


def test_what_is_foreign_is_noticed() -> None:
    assert foreign(f"--index-url https://{HOSTS[0]}/simple")
    assert foreign(f"cd {FOLDERS[0]}main") and foreign(f'"{FOLDERS[1]}.venv"')
    assert not foreign(f"recurrent.example.com, ~/data, $HOME{FOLDERS[0]}x, a{FOLDERS[0]}b")


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    files = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in tree_files()}
    assert len(files) > 40
    assert {name: found for name, text in files.items() if (found := foreign(text))} == {}


def test_no_python_file_is_long() -> None:
    sizes = {
        name: len((ROOT / name).read_text().splitlines())
        for name in tree_files()
        if name.endswith(".py")
    }
    assert len(sizes) > 20
    assert {name: size for name, size in sizes.items() if size > 300} == {}


# --- what `--help` imports ------------------------------------------------------------------------

# Runs a module as `python -m` does, and then says which of the heavy packages it has imported.
PROBE = """
import runpy, sys
module, sys.argv[1:] = sys.argv[1], sys.argv[2:]
code = 0
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "ray"})
print("PROBE", code, *heavy)
"""


def probe(*argv: str, cwd: Path = ROOT) -> list[str]:
    """Exit code and heavy packages, as words."""
    done = run(sys.executable, "-c", PROBE, *argv, cwd=cwd)
    assert done.stdout.splitlines(), done.stderr
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "argv",
    [
        ("bench", "--help"),
        *[(f"bench.{verb}", "--help") for verb in VERBS],
        ("bench", "grid", "--help"),
        ("bench.plugins", "list"),
    ],
    ids=" ".join,
)
def test_help_imports_neither_torch_nor_ray(argv: tuple[str, ...]) -> None:
    assert probe(*argv) == ["PROBE", "0"]


def test_the_probe_notices(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "verb.py").write_text("import sys, torch\nsys.exit(3)\n")
    assert probe("verb", "--help", cwd=tmp_path) == ["PROBE", "3", "torch"]
