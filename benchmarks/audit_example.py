"""What does an audit show? Makes the picture and the table of the README from two saved audits of the hourglass.

python examples/hourglass_mpii.py --arms none uniform --epochs 5 1 13 --random uniform --batch-size 24 --lr 1e-3 \\
    --out runs/audit_example
python benchmarks/audit_example.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from benchmarks.result_files import save
from examples.hourglass.tables import compared

ARMS, SETTINGS = ("none", "uniform"), "--epochs 5 1 13 --random uniform --batch-size 24 --lr 1e-3"


def main() -> None:
    """Reads both audits and writes their picture and table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/audit_example"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    before, after = (adaug.Audit.load(args.runs / f"audit-{arm}-seed{args.seed}.npz") for arm in ARMS)
    markdown = (
        "An hourglass of the demo's size, trained on drawn people as they are (before), and on the same people mirrored, "
        "turned up to ±60°, scaled by 0.7 to 1.4 and hidden in part, all drawn evenly (after). Joints of "
        f"{len(before)} other people found at PCKh@0.5; one seed.\n\n"
        f"{compared(before, after, ('before', 'after'))}\n\n"
        f"Audits of `python examples/hourglass_mpii.py --arms {' '.join(ARMS)} {SETTINGS} --out {args.runs}`."
    )
    print(markdown)
    save("audit_example", {"before": before.to_dict(), "after": after.to_dict()}, markdown, before.figure(after))


if __name__ == "__main__":
    main()
