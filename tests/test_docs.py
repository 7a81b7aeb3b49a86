"""What the README and the documentation show works: every block of Python runs, and every public name is described."""

import dataclasses
import functools
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import adaug
from examples.hourglass.config import Config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
EXTRAS = ("lightning", "accelerate", "matplotlib", "transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about loggers, workers and versions


def blocks(page, language):
    """Its fenced blocks of a language as (first line, text)."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^( *)```{language}\b[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(2)].count("\n"), textwrap.dedent(match[2])


def run(page, line, block, namespace):
    for extra in EXTRAS:
        if re.search(rf"^(from|import) {extra}\b", block, re.MULTILINE):
            pytest.importorskip(extra)
    exec(compile("\n" * (line + 1) + block, str(page), "exec"), namespace)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty folder, a group of one process, and a compiler that takes no time."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1], "RANK": 0, "WORLD_SIZE": 1}
    for name, value in address.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


SLOW = {"your-loop", "quick-start"}  # pages that import trainers, or train
READ = [
    pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem)
    for page in PAGES
    if any(blocks(page, "python"))
]


@pytest.mark.parametrize("page", READ)
def test_python_blocks_run(page, alone, capsys):
    namespace = {"__name__": page.stem}
    for line, block in blocks(page, "python"):
        run(page, line, block, namespace)


DIFFS = [page for page in PAGES if any(blocks(page, "diff")) and page.stem != "your-loop"]  # tests/test_loops.py runs its own


@pytest.mark.parametrize("page", DIFFS, ids=lambda page: page.stem)
def test_diffs_run_after_the_change(page):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3, 2, 1))
    points = {"keypoints": torch.rand(3, 2, 2) * 32, "visibility": torch.ones(3, 2)}
    namespace = {
        "adaug": adaug, "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [{"image": torch.rand(3, 3, 32, 32), **points}],
        "criterion": lambda output, batch: output.square().mean(),
        "loss_fn": lambda output, batch: output.square().mean((1, 2, 3)),
    }  # fmt: skip
    before = model[0].weight.detach().clone()
    for line, block in blocks(page, "diff"):
        run(page, line, "\n".join(text[1:] for text in block.splitlines() if not text.startswith("-")), namespace)
    assert not torch.equal(before, model[0].weight)


def test_options_of_commands_exist():
    folders = [ROOT / name for name in ("examples", "benchmarks")]
    sources = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    for page in PAGES:
        for _, block in blocks(page, "console"):
            for command in re.findall(r"python .*(?:examples|benchmarks)(?:\\\n|.)*", block):
                options = set(re.findall(r"(?<= )--[\w-]+", command))
                settings = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Config)}
                assert options <= set(re.findall(r'"(--[\w-]+)"', sources)) | settings, command


def test_the_reference_covers_every_public_name():
    described = set(re.findall(r"^::: adaug\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert described >= set(adaug.__all__)


def test_every_result_has_its_place_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    patterns = re.findall(r"^<!-- results: (\S+) -->$", text, re.MULTILINE)
    assert patterns
    for path in (ROOT / "benchmarks" / "results").glob("*.md"):
        assert any(path.match(f"{pattern}.md") for pattern in patterns), path.name


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for extra in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(extra)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    elsewhere = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=.?(?:https?:)?//")
    for page in tmp_path.rglob("*.html"):  # it is read without a network too
        assert not elsewhere.search(page.read_text(encoding="utf-8")), page.name
    honest = (tmp_path / "when-it-helps" / "index.html").read_text(encoding="utf-8")
    faces = honest[honest.index("faces of Helen: ") :]
    assert faces.index("worst_view_faces.svg") < faces.index("<table") < faces.index("<details>"), "the figure comes first"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"\b([\w-]+\.md)\b", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_parameter_counts_on_the_page():
    from examples.hourglass.model import StackedHourglass

    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    for arguments in ({"modules": 3}, {"block": "dense", "modules": 6}, {"stacks": 8}):
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in StackedHourglass(**arguments).parameters())
        assert f"| {count / 1e6:.2f} M |" in page


def test_every_promise_names_a_test():
    page = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 15
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name
