"""Do the paper's generators help? Judged on the hourglasses of the examples."""

from __future__ import annotations

from benchmarks.compare import of_examples
from benchmarks.compare.of_examples import ExampleArm
from benchmarks.compare.study import Study
from benchmarks.paper.ablations import Ablation

NONE, RANDOM_CROPS, EVEN_CROPS = ExampleArm("none", "none"), ExampleArm("random", "random"), ExampleArm("uniform", "uniform")
BOTH = ExampleArm("asr+aho", "asr+aho")
WIDE = ("--rotation", "60", "--scale", "0.65", "1.5")
LSP_300 = Study(
    "accuracy_lsp_300",
    "Do the paper's generators help an hourglass on 300 people?",
    of_examples.people,
    [
        NONE,
        RANDOM_CROPS,
        EVEN_CROPS,
        ExampleArm("trivial", "trivial"),
        ExampleArm("global", "asr+aho", Ablation(one_for_all=True)),
        ExampleArm("asr", "asr"),
        ExampleArm("aho", "aho"),
        BOTH,
    ],
    run=of_examples.run_people,
    against=["random", "uniform", "asr+aho"],
)
LSP_300_WIDER = Study(
    "accuracy_lsp_300_wider",
    "The same with 1.5 times the channels.",
    of_examples.people,
    [RANDOM_CROPS, EVEN_CROPS, BOTH],
    sizes={"width": 96},
    run=of_examples.run_people,
    against=["random", "uniform"],
)
LSP_1000 = Study(
    "accuracy_lsp_1000",
    "The same with 1000 people.",
    of_examples.people,
    [NONE, RANDOM_CROPS, EVEN_CROPS, ExampleArm("trivial", "trivial"), BOTH],
    sizes={"train": 1000, "epochs": (10, 1, 30)},
    run=of_examples.run_people,
    against=["random", "uniform"],
)
LSP_300_CHANGES = Study(
    "changes_lsp_300",
    "What changes if the paper's generators learn, read or hide in another way? With wide ranges, on 300 people.",
    of_examples.people,
    [
        ExampleArm("random", "random", Ablation(random="normal"), WIDE),
        ExampleArm("uniform", "uniform", Ablation(random="normal"), WIDE),
        *(
            ExampleArm(name, "asr+aho", Ablation(random="normal", **changes), WIDE)  # type: ignore[arg-type]
            for name, changes in {
                "asr+aho": {},
                "off after 70 %": {"until": 0.7},
                "shares 0.2": {"share": 0.2},
                "hides the image": {"hides": ()},
                "reads the neck": {"reads": ("hg.0.neck",)},
                "reads the image": {"reads": ()},
                "one for all": {"one_for_all": True},
                "scoring='train'": {"scoring": "train"},
                "update_every=4": {"update_every": 4},
            }.items()
        ),
        ExampleArm("no cap", "asr+aho", Ablation(random="normal"), (*WIDE, "--cap", "inf")),
        ExampleArm("rest, uniform", "uniform", Ablation(rest=True), WIDE),
        ExampleArm("rest, asr+aho", "asr+aho", Ablation(rest=True), WIDE),
    ],
    run=of_examples.run_people,
    against=["random", "uniform", "asr+aho"],
)
