"""All studies. A new question is a few lines here."""

from __future__ import annotations

from adaug.policies import Running
from benchmarks.compare import of_examples, tasks
from benchmarks.compare.arms import (
    EVEN,
    GENERATORS,
    Arm,
    RandomViews,
    Views,
    even,
    plain,
    running_trivial,
    shifted_and_sheared,
    trivial,
)
from benchmarks.compare.of_examples import ExampleArm
from benchmarks.compare.study import Study
from benchmarks.compare.trials import HardImages, LearnedShares, fixed, one_table, worst_of
from benchmarks.paper.ablations import Ablation

RUNNING = Running()
UNIFORM_ARM, RUNNING_ARM = Arm("uniform"), Arm("running", Views(RUNNING))
EXACT, RANDOM = Arm("exact", Views(GENERATORS)), Arm("random", trainer=RandomViews)


def _cap(cap: float) -> Arm:
    return Arm(f"running, cap {cap:g}", Views(Running(cap)))


def _features(name: str, views: Views | None = None) -> Arm:
    return Arm(name, views or Views(), hides="features")


# -- the worst view ----------------------------------------------------------------------------------------------------

FACES = Study(
    "worst_view_faces",
    "Where does running difficulty win on faces, and is it only that more extreme views are drawn?",
    tasks.faces,
    [
        Arm("uniform, 1/6", Views(share=1 / 6)),
        Arm("uniform, 1/3"),
        Arm("uniform, 1/2", Views(share=1 / 2)),
        Arm("uniform, 2/3", Views(share=2 / 3)),
        Arm("uniform, even", even),
        Arm("running, 1/3", Views(RUNNING)),
        Arm("running, 1/6", Views(RUNNING, share=1 / 6)),
        Arm("running, 1/2", Views(RUNNING, share=1 / 2)),
        Arm("running, 2/3", Views(RUNNING, share=2 / 3)),
        EXACT,
        RANDOM,
    ],
    seeds=6,
    against=["uniform, 1/3"],
    family="uniform",
    figure="frontier",
    learned=True,
)
FACES_128 = Study(
    "worst_view_faces_128",
    "The same with larger images.",
    tasks.faces,
    [UNIFORM_ARM, RUNNING_ARM],
    sizes={"side": 128},
    against=["uniform"],
)
FACES_OTHERS = Study(
    "worst_view_faces_others",
    "What else helps the worst view of faces: a fixed distribution, the worst of several views, two views of each image?",
    tasks.faces,
    [
        UNIFORM_ARM,
        RUNNING_ARM,
        Arm("fixed", Views(operations=fixed)),
        worst_of(2),
        worst_of(4),
        worst_of(10),
        Arm("uniform, two views", views=2),
        Arm("running, two views", Views(RUNNING), views=2),
    ],
    against=["uniform"],
    figure="frontier",
)
FACES_CHANGES = Study(
    "worst_view_faces_changes",
    "Running difficulty on faces, one change at a time. Cells of features are hidden.",
    tasks.faces,
    [
        _features("running, cap 2.5", Views(RUNNING)),
        _features("uniform"),
        _features("running, cap 2", Views(Running(2))),
        _features("running, cap 3", Views(Running(3))),
        _features("running, cap 4", Views(Running(4))),
        _features("running, rest, 2/3", Views(Running(2), share=2 / 3, rest=True)),
        _features("running, one table", Views(RUNNING, operations=one_table)),
        Arm("running, hard images", Views(RUNNING), HardImages, hides="features"),
        Arm("running, trivial", running_trivial),
        Arm("uniform, trivial", trivial),
    ],
    seeds=6,
    against=["running, cap 2.5"],
    figure="frontier",
)
FACES_PARTS = Study(
    "worst_view_faces_parts",
    "Which parts of running difficulty matter on faces: cells, shares, more operations?",
    tasks.faces,
    [
        RUNNING_ARM,
        UNIFORM_ARM,
        Arm("running, cells even", Views(RUNNING, cells=EVEN)),
        Arm("running, learned shares", Views(RUNNING), LearnedShares),
        Arm("running, four operations more", Views(RUNNING, operations=shifted_and_sheared)),
        Arm("uniform, four operations more", Views(operations=shifted_and_sheared)),
    ],
    against=["running"],
    figure="frontier",
)
FACES_HIDE = Study(
    "worst_view_faces_hide",
    "Should cells of the image be hidden, or cells of features? On faces.",
    tasks.faces,
    [_features("uniform, features"), Arm("uniform, image")],
    seeds=6,
    against=["uniform, features"],
    figure="frontier",
)
PEOPLE = Study(
    "worst_view_people",
    "Where does running difficulty win on people?",
    tasks.people,
    [
        Arm("uniform, 1/6", Views(share=1 / 6)),
        Arm("uniform, 1/3"),
        Arm("uniform, 2/3", Views(share=2 / 3)),
        Arm("uniform, even", even),
        Arm("running, 1/6", Views(RUNNING, share=1 / 6)),
        Arm("running, 1/3", Views(RUNNING)),
        Arm("running, 2/3", Views(RUNNING, share=2 / 3)),
        EXACT,
        RANDOM,
    ],
    seeds=10,
    against=["uniform, 1/3"],
    family="uniform",
    figure="frontier",
)
PEOPLE_1000 = Study(
    "worst_view_people_1000",
    "The same with more people to learn from. Cells of features are hidden.",
    tasks.people,
    [_features("uniform"), _features("running", Views(RUNNING))],
    sizes={"train": 1000},
    against=["uniform"],
)
PEOPLE_OTHERS = Study(
    "worst_view_people_others",
    "Do two views of each image help on people?",
    tasks.people,
    [
        UNIFORM_ARM,
        RUNNING_ARM,
        Arm("uniform, two views", views=2),
        Arm("running, two views", Views(RUNNING), views=2),
    ],
    against=["uniform"],
    figure="frontier",
)
PEOPLE_CHANGES = Study(
    "worst_view_people_changes",
    "Running difficulty on people, one change at a time. Cells of features are hidden.",
    tasks.people,
    [
        _features("running, cap 2", Views(Running(2))),
        _features("uniform"),
        _features("running, cap 2.5", Views(RUNNING)),
        _features("running, cap 3", Views(Running(3))),
        _features("running, cap 4", Views(Running(4))),
        _features("running, cap 3, rest, 2/3", Views(Running(3), share=2 / 3, rest=True)),
        _features("uniform, rest, 2/3", Views(share=2 / 3, rest=True)),
    ],
    seeds=10,
    against=["running, cap 2"],
    figure="frontier",
)
PEOPLE_HIDE = Study(
    "worst_view_people_hide",
    "Should cells of the image be hidden, or cells of features? On people.",
    tasks.people,
    [_features("uniform, features"), Arm("uniform, image")],
    seeds=10,
    against=["uniform, features"],
    figure="frontier",
)
DIGITS = Study(
    "worst_view_digits",
    "Where does running difficulty win on digits?",
    tasks.digits,
    [UNIFORM_ARM, RUNNING_ARM, EXACT, RANDOM],
    seeds=6,
    against=["uniform"],
    needs_data=False,
)
DIGITS_CHANGES = Study(
    "worst_view_digits_changes",
    "Running difficulty on digits, one change at a time.",
    tasks.digits,
    [
        _cap(2),
        UNIFORM_ARM,
        _cap(2.5),
        _cap(3),
        _cap(4),
        Arm("running, by the loss", Views(Running(2)), difficulty="loss"),
        Arm("running, one table", Views(Running(2), operations=one_table)),
    ],
    sizes={"test": 700},
    seeds=6,
    against=["running, cap 2"],
    figure="frontier",
    needs_data=False,
)
SEGMENTATION = Study(
    "worst_view_segmentation",
    "Where does running difficulty win on the regions of faces?",
    tasks.segmentation_of_faces,
    [Arm("uniform", epochs=100), Arm("running", Views(RUNNING), epochs=100)],
    seeds=6,
    against=["uniform"],
)

# -- how long? -----------------------------------------------------------------------------------------------------------

ROBUST = Views(RUNNING, hidden=1 / 3)
LENGTHS_DIGITS = Study(
    "lengths_digits",
    "What do harder views cost on digits as they are, and win at the worst view, in short and in long trainings?",
    tasks.digits,
    [
        Arm(f"{name}, {epochs} epochs", policy, epochs=epochs)
        for name, policy in (("plain", plain), ("uniform", Views()), ("running", Views(RUNNING)), ("robust", ROBUST))
        for epochs in (8, 30, 100)
    ],
    pairs={
        f"At {epochs} epochs, to {base}": [(f"{arm}, {epochs} epochs", f"{base}, {epochs} epochs") for arm in arms]
        for epochs in (8, 30, 100)
        for base, arms in (("uniform", ("running", "robust")), ("plain", ("uniform", "running", "robust")))
    },
    figure="time",
    needs_data=False,
)
LENGTHS_FACES = Study(
    "lengths_faces",
    "Two views of each image, or twice the epochs? On faces, in equal time.",
    tasks.faces,
    [
        *(
            Arm(f"{name}, {epochs} epochs", policy, epochs=epochs)
            for name, policy in (("plain", plain), ("uniform", Views()), ("running", Views(RUNNING)))
            for epochs in (80, 160)
        ),
        Arm("uniform on two views, 80 epochs", Views(), views=2, epochs=80),
        Arm("running on two views, 80 epochs", Views(RUNNING), views=2, epochs=80),
    ],
    pairs={
        "Running difficulty to uniform draws, of the same steps and views": [
            (f"running{how}", f"uniform{how}") for how in (", 80 epochs", ", 160 epochs", " on two views, 80 epochs")
        ],
        "Two views of each image to twice the epochs": [
            (f"{name} on two views, 80 epochs", f"{name}, 160 epochs") for name in ("uniform", "running")
        ],
    },
    figure="time",
)
LENGTHS_SEGMENTATION = Study(
    "lengths_segmentation",
    "What do harder views cost and win on the regions of faces, in a short training?",
    tasks.segmentation_of_faces,
    [Arm("plain", plain), UNIFORM_ARM, RUNNING_ARM],
    against=["uniform", "plain"],
)

# -- the examples --------------------------------------------------------------------------------------------------------

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
HELEN = Study(
    "accuracy_helen",
    "Do the paper's generators help an hourglass on 100 faces?",
    of_examples.faces,
    [
        *(
            ExampleArm(kind, kind, options=("--policy", "paper"))
            for kind in ("none", "random", "uniform", "trivial", "global", "asr", "aho", "adversarial")
        ),
        *(ExampleArm(f"{kind}, wide", kind) for kind in ("random", "uniform", "adversarial")),
    ],
    run=of_examples.run_faces,
    against=["random", "uniform"],
)

STUDIES = {study.name: study for study in list(globals().values()) if isinstance(study, Study)}
