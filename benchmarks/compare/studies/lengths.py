"""How long? What harder views cost on images as they are, and win at the worst view, in short and in long trainings."""

from __future__ import annotations

from benchmarks.compare import tasks
from benchmarks.compare.arms import RUNNING, Arm, Views, plain
from benchmarks.compare.study import Study

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
    [Arm("plain", plain), Arm("uniform"), Arm("running", Views(RUNNING))],
    against=["uniform", "plain"],
)
