"""Where does training against weak spots win? Judged by the worst view of each image."""

from __future__ import annotations

from adaug.learners import Running
from benchmarks.compare import tasks
from benchmarks.compare.arms import (
    EVEN,
    GENERATORS,
    RUNNING,
    Arm,
    RandomViews,
    Views,
    even,
    running_trivial,
    shifted_and_sheared,
    trivial,
)
from benchmarks.compare.learners import Fixed, Softmax, WorstOf
from benchmarks.compare.study import Study
from benchmarks.compare.trials import HardImages, LearnedShares, one_table, worst_of

UNIFORM_ARM, RUNNING_ARM = Arm("uniform"), Arm("running", Views(RUNNING))
EXACT, RANDOM = Arm("exact", Views(GENERATORS)), Arm("random", trainer=RandomViews)


def _cap(cap: float) -> Arm:
    return Arm(f"running, cap {cap:g}", Views(Running(cap)))


def _features(name: str, views: Views | None = None) -> Arm:
    return Arm(name, views or Views(), hides="features")


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
        Arm("fixed", Views(Fixed(), cells=EVEN)),
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
LEARNERS = Study(
    "worst_view_faces_learners",
    "Learners that adaug does not ship, on faces: a fixed shape, a softmax of difficulties, the worst of k views of a branch.",
    tasks.faces,
    [
        UNIFORM_ARM,
        RUNNING_ARM,
        Arm("fixed", Views(Fixed(), cells=EVEN)),
        Arm("softmax", Views(Softmax())),
        Arm("worst of 2", Views(WorstOf(2))),
        Arm("worst of 4", Views(WorstOf(4))),
    ],
    against=["running"],
)
