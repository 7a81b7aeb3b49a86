from __future__ import annotations

from examples import plain_loop


def test_the_plain_loop_runs(capsys):
    scores = plain_loop.main(["--epochs", "1", "--people", "12"])
    assert list(scores) == ["random", "robust"]
    assert all(0 <= value <= 100 for value in scores.values())
    assert f"{scores['robust'] - scores['random']:+6.1f}" in capsys.readouterr().out
