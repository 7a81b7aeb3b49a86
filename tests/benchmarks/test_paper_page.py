from __future__ import annotations

import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import figures, page, published, tables
from benchmarks.paper.comparisons import read_comparisons
from benchmarks.paper.tables import tables_of
from benchmarks.result_files import with_spread
from examples import hourglass_mpii
from examples.hourglass.comparison import FILE, VERSION, write_results

TINY = [
    *("--size", "32", "--width", "8", "--depth", "2", "--epochs", "1", "1", "2", "--batch-size", "6", "--device", "cpu"),
    *("--people", "12", "--test-people", "4", "--bins-every", "1"),
]

pytestmark = pytest.mark.slow  # they train, to have something to report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same comparison in two folders, an arm each."""
    root = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings():  # TensorBoard's own imports warn
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard")
        for arm in ("random", "asr+aho"):
            hourglass_mpii.main([*TINY, "--arms", arm, "--out", str(root / arm)])
    return [root / "random", root / "asr+aho"]


def fake(tmp_path: Path, name: str, **changes: Any) -> Path:
    """A folder as LSP's script would leave it, without history and checkpoints."""
    groups = dict(zip(published.COLUMNS, (90.0, 80.0, 70.0, 60.0, 75.0, 65.0, 55.0, 72.0), strict=True))
    runs = {
        arm: [
            {
                "seed": seed,
                "folder": f"{arm}-seed{seed}",
                "pck": {},
                "benchmark": {"0.1": groups, "0.2": {group: value + more + seed for group, value in groups.items()}},
                "history": [],
            }
            for seed in (0, 1, 2)
        ]
        for arm, more in (("random", 0.0), ("asr+aho", 1.5))
    }
    data = {
        "train": "LSP training set",
        "test": "LSP test set",
        "kind": "lsp-test",
        "source": {"number": None, "poses": "narrow", "seed": 0},
        "train_people": 1000,
        "test_people": 1000,
        "joints": "LSP",
        "coordinates": "original photographs",
    }
    config = {"block": "residual", "stacks": 1, "modules": 1, "size": 64, "rotation": 30.0, "measure": "error", "arm": "random"}
    results = {
        "version": VERSION,
        "data": data,
        "metric": {"name": "PCK", "threshold": 0.2, "curve": [0.1, 0.2]},
        "parameters": 123_456,
        "config": config,
        "arms": runs,
    }
    folder = tmp_path / name
    folder.mkdir()
    for key, value in changes.items():
        results[key] = {**results[key], **value} if isinstance(value, dict) else value
    write_results(folder / FILE, results)
    return folder


class Page(HTMLParser):
    """Collects what a page shows and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_drawn_people(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = page.main([*map(str, runs), "--out", str(tmp_path / "page"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "page" / "page.md").read_text().strip()
    shown = Page(path.read_text())
    assert shown.open == []
    assert len(shown.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in shown.sources), "nothing is fetched"
    for name in ("figure5_1", "figure6_1", "figure7_1"):
        assert (tmp_path / "page" / f"{name}.png").stat().st_size > 10_000
    for text in (printed, shown.text):
        assert "These are drawn people, not MPII" in text
        assert "CVPR 2018" in text
        assert "tested on 4" in text
    # No row of ours stands in a table of MPII's.
    for table in printed.split("**The paper")[1:]:
        assert ", ours (" not in table.split("**Ours")[0].split("##")[0]
    ours = r"\*\*Ours \(random views: upright\), drawn people who also bend and lie, PCKh@0\.5: "
    assert re.search(ours + "residual hourglass, 1 × 1, 3 K parameters", printed)
    assert "+ASR+AHO − Random Aug., ours (n = 1)" in printed


def test_one_command_a_table_and_a_figure(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main(["1", *map(str, runs)])
    printed = capsys.readouterr().out
    assert "# Table 1: which augmentation helps" in printed
    assert "| Random Aug., ours (n = 1)" in printed
    tables.main(["3"])
    assert "| +ASR+AHO, paper" in capsys.readouterr().out
    figures.main(["5", *map(str, runs), "--out", str(tmp_path), "--device", "cpu"])
    assert (tmp_path / "figure5_1.png").stat().st_size > 10_000
    assert "What the generator of asr+aho proposes for rotation" in capsys.readouterr().out


def test_the_numbers_of_the_paper_are_consistent() -> None:
    for rows in (*published.TABLE_1.values(), published.TABLE_2, published.TABLE_3):
        assert all(len(row) == len(published.COLUMNS) for row in rows.values())
        assert rows["asr+aho"][-1] > rows["random"][-1]
    # Section 5.4: by 0.6 and by 1.5 over the baseline.
    assert [round(t["asr+aho"][-1] - t["random"][-1], 1) for t in (published.TABLE_2, published.TABLE_3)] == [0.6, 1.5]


def test_the_same_people_share_a_table_with_the_paper(tmp_path: Path) -> None:
    (table,) = tables_of(3, read_comparisons([fake(tmp_path, "lsp")]))
    assert list(table.rows) == [
        "Stacked HGs(8) of Newell et al. (ECCV 2016), paper",
        "Random Aug., ours (n = 3)",
        "+ASR+AHO, paper",
        "+ASR+AHO, ours (n = 3)",
        "+ASR+AHO − Random Aug., ours (n = 3)",
    ]
    means = [row["Mean"] for row in table.rows.values()]
    assert means == ["93.0", "73.0 ± 1.0", "94.5", "74.5 ± 1.0", "+1.5 ± 0.0"]
    assert table.title.startswith("Ours, LSP test set, PCK@0.2: residual hourglass, 1 × 1, 0.12 M parameters, 64 × 64")
    assert "measured in pixels of the original photographs" in table.notes[0]


def test_a_part_of_the_people_is_not_the_papers_test_set(tmp_path: Path) -> None:
    folder = fake(tmp_path, "part", data={"test_people": 100})
    theirs, ours = tables_of(3, read_comparisons([folder]))
    assert theirs.title == "The paper, LSP test set, PCK@0.2"
    assert ours.title.startswith("Ours, 100 people of the LSP test set")
    assert not any("paper" in row for row in ours.rows)


def test_eight_stacks_on_mpii_are_validation_people(tmp_path: Path) -> None:
    changes = {"kind": "mpii-valid", "joints": "MPII", "test": "MPII validation set", "test_people": 2958}
    folder = fake(tmp_path, "mpii", data=changes, config={"stacks": 8})
    theirs, ours = tables_of(2, read_comparisons([folder]))
    assert theirs.title == "The paper, MPII test set, PCKh@0.5"
    assert ours.title.startswith("Ours, MPII validation set")
    assert "labels are not public" in ours.notes[1]
    (single,) = (t for t in tables_of(1, read_comparisons([fake(tmp_path, "one", data=changes)])) if "Ours" in t.title)
    assert [row for row in single.rows if "paper" in row] == [f"{name}, paper" for name in published.ARMS.values()]


def test_without_checkpoints_or_data_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page.main([str(fake(tmp_path, "lsp")), "--out", str(tmp_path / "page"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "no Figure 5. Two runs should have looked at their bins" in printed
    assert "no Figure 7. The folder of the test people should be given for lsp-test. Found none; pass --lsp DIR" in printed
    assert "figure6_1.png" in printed


def test_folders_are_put_together_when_their_settings_agree(runs: list[Path], tmp_path: Path) -> None:
    (both,) = read_comparisons(runs)
    assert list(both.runs) == ["random", "asr+aho"]
    assert both.runs["random"][0]["path"] == runs[0] / "random-seed0"
    assert len(both.history("asr+aho")) == 4
    other = fake(tmp_path, "other", config={"size": 128})
    assert len(read_comparisons([*runs, fake(tmp_path, "lsp"), other])) == 3
    with pytest.raises(ValueError, match=r"should differ in arms or seeds\. Found random with seed 0 .* again"):
        read_comparisons([runs[0], runs[0]])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"should hold results\.json.*Found none; run the script again"):
        read_comparisons([tmp_path])
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ValueError, match="Found it damaged"):
        read_comparisons([tmp_path])
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(ValueError, match=rf"should be of version {VERSION}\. Found None; run the script again"):
        read_comparisons([tmp_path])


def test_results_are_readable_and_the_same_when_read(tmp_path: Path) -> None:
    content = {
        "row": {"a": 1.5, "b": None},
        "list": [1, 2],
        "deep": [{"x": [0.1, 0.2], "y": {}, "z": "a [b] {c}"}],
        "empty": [],
    }
    write_results(tmp_path / FILE, content)
    text = (tmp_path / FILE).read_text()
    assert json.loads(text) == content
    assert '"row": {"a": 1.5, "b": null}' in text
    assert '"list": [1, 2]' in text


def test_spread() -> None:
    assert with_spread([50.0]) == "50.0"
    assert with_spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert with_spread([-1.0, -2.0], sign="+") == "−1.5 ± 0.7"
