from __future__ import annotations

import pytest


def test_digits():
    classification = pytest.importorskip("examples.classification", reason="needs scikit-learn, of the [examples] extra")
    (image, label), (test, _) = classification.digits(100)
    assert image.shape == (100, 1, 32, 32)
    assert test.shape == (797, 1, 32, 32)
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    assert label[:10].tolist() == list(range(10))
    with pytest.raises(ValueError, match="797"):
        classification.digits(1797)


def test_classification_runs(capsys, tmp_path, monkeypatch):
    classification = pytest.importorskip("examples.classification", reason="needs scikit-learn, of the [examples] extra")
    train, test = classification.digits(16)
    monkeypatch.setattr(classification, "digits", lambda _: (train, tuple(part[:60] for part in test)))
    scores = classification.main(["--epochs", "1", "--batch-size", "8", "--digits", "16", "--out", str(tmp_path)])
    assert list(scores) == ["random", "robust"]
    for arm in scores.values():
        assert list(arm) == list(classification.SHOWN)
        assert arm["worst per image"] == arm["in every view"]
        assert all(0 <= value <= 100 for value in arm.values())
    printed = capsys.readouterr().out
    assert "16 training and 60 test digits" in printed
    assert (tmp_path / "audit.html").is_file()
