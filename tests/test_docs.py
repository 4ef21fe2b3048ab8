"""README and documentation: code blocks run, commands and links exist, numbers agree. docs/tests.md tells the rules."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
"""Those that people write; docs/generated is Sphinx's."""
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(\w*|\{\S+\}.*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FINISHED_RUN = """
from pathlib import Path
from sb3_carla import TD3

run = Path("logs/td3/CarlaLane-v0_1")
(run / "CarlaLane-v0").mkdir(parents=True)
(run / "CarlaLane-v0/config.yml").write_text("env_kwargs: {action_repeat: 4}")
model = TD3("LayerNormCnnPolicy", "CarlaLane-v0", buffer_size=10)
model.save(run / "CarlaLane-v0")
model.env.close()
"""
GETS_ITS_ENVIRONMENT = "assert env.spec.kwargs['action_repeat'] == 4, env.spec.kwargs"
RUN_ALL = """
import json, sys
for name, code in json.load(sys.stdin):
    print(name, file=sys.stderr)
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
"""


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(text) if kind == language]


# --- blocks --------------------------------------------------------------------------------------------------------


def test_every_block_says_what_it_is() -> None:
    kinds = {kind for text in TEXTS.values() for kind, _ in BLOCK.findall(text)}
    assert {kind for kind in kinds if not kind.startswith("{")} == {"python", "py", "sh", "text"}
    for page in ("README.md", "docs/getting-started.md", "docs/training.md", "docs/server.md"):
        assert blocks(TEXTS[page], "python"), page


@pytest.mark.long
def test_blocks_run(tmp_path: Path) -> None:
    """All in one process, so that imports are made once. Each block has names of its own; equal ones run once."""
    pages: dict[str, str] = {}
    for page, text in TEXTS.items():
        for kind, check in (("python", ""), ("py", GETS_ITS_ENVIRONMENT)):
            pages |= {code + check: f"{page}, {kind} block {i}" for i, code in enumerate(blocks(text, kind))}
    code = [("a finished run", FINISHED_RUN), *((name, block) for block, name in pages.items())]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(code),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr


# --- commands ------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """Lines of ``sh`` blocks, and what stands between backticks and begins like one of our commands."""
    lines = [line for code in blocks(text, "sh") for line in code.splitlines()]
    lines += re.findall(r"`((?:python |make |scripts/|benchmarks/)[^`]+)`", BLOCK.sub("", text).replace("\n", " "))
    return [line.partition("  #")[0].strip() for line in lines]


@cache
def source_of(command: str) -> str:
    """Source that names a command's options."""
    if command == "rl_zoo3":
        files = ["train.py", "enjoy.py", "record_video.py"]
        distribution = importlib.metadata.distribution("rl_zoo3")
        return "".join(Path(str(distribution.locate_file(f"rl_zoo3/{name}"))).read_text() for name in files)
    path = ROOT / command
    text = path.read_text(encoding="utf-8")
    for module in re.findall(r"^from (sb3_carla\.[\w.]+) import main$", text, flags=re.MULTILINE):
        text += (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    return text


def check_command(line: str) -> None:
    words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]  # without variables
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert f"\n{words[1]}:" in makefile, line
        for variable in re.findall(r"\b([A-Z]+)=", line):
            assert re.search(rf"^{variable} \?=", makefile, flags=re.MULTILINE), line
        return
    words = words[1:] if words[0] == "python" else words
    if words[0] == "-m":
        module, words = words[1], words[2:]
        command = "rl_zoo3" if module.startswith("rl_zoo3.") else f"{module.replace('.', '/')}/__main__.py"
    elif words[0].startswith(("scripts/", "benchmarks/")):
        command, words = words[0], words[1:]
    else:
        return  # not a command of ours
    if "--" in words:
        words = words[: words.index("--")]  # what follows is for rl-zoo3
    source = source_of(command)
    for option in (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)):
        assert f'"{option}"' in source, f"{line}: {command} has no {option}"


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if commands(text)])
def test_commands_exist(page: str) -> None:
    for line in commands(TEXTS[page]):
        check_command(line)


def test_continuous_integration_calls_our_targets() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    for step in jobs["test"]["steps"]:
        check_command(step.get("run", "make test"))
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12"]


def test_wrong_commands_are_found() -> None:
    wrong = (
        "make tea",
        "make train TEA=1",
        "python scripts/tea.py",
        "scripts/evaluate.py --tea",
        "python -m rl_zoo3.train --tea 1",
    )
    for line in wrong:
        with pytest.raises((AssertionError, FileNotFoundError)):
            check_command(line)


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", TEXTS[page])):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.is_file(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_named_files_exist(page: str) -> None:
    named = set(re.findall(r"(?<![\w/.])((?:scripts|benchmarks|docs|tests|hyperparams)/[\w/-]+\.\w+)", TEXTS[page]))
    assert [name for name in sorted(named) if not (ROOT / name).is_file() and "WORD" not in name] == []


# --- what the pages say ----------------------------------------------------------------------------------------------


def table(text: str) -> dict[str, dict[str, str]]:
    """The first table with a row "success": row to column to cell."""
    blocks = (block for block in text.split("\n\n") if re.search(r"^\| success \|", block, re.MULTILINE))
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in next(blocks).splitlines()]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def test_readme_is_short_and_its_results_are_those_of_the_results_page() -> None:
    assert len(TEXTS["README.md"].split()) <= 1200
    ours, whole = table(TEXTS["README.md"].partition("## ")[0]), table(TEXTS["docs/results.md"])
    assert "success" in ours
    for row, cells in ours.items():
        for column, cell in cells.items():
            # The README's rows for the models give no seeds.
            assert cell.removesuffix(" each") == whole[row][column].removesuffix(" each"), (row, column)


def test_presets_and_callbacks_are_the_ones_there_are() -> None:
    from sb3_carla import callbacks
    from sb3_carla.zoo.algorithms import presets

    for word in presets("td3"):
        assert f"`{word}`" in TEXTS["docs/training.md"]
    for name in callbacks.__all__:
        assert f"`{name}`" in TEXTS["docs/diagnostics.md"]


def test_design_lists_the_rooms() -> None:
    from test_packaging import MAY_IMPORT

    rooms = set(re.findall(r"^\| `([\w/]+)/` \|", TEXTS["docs/design.md"], flags=re.MULTILINE))
    assert {room.removeprefix("sb3_carla.").replace(".", "/") for room in MAY_IMPORT} <= rooms


@pytest.mark.long
def test_the_site_has_no_warnings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lateral_offset_m" in (tmp_path / "environment.html").read_text(encoding="utf-8")
