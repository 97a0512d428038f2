"""What the tests of the commands share."""

import pytest

import dfc_jax


@pytest.fixture
def fake(monkeypatch, aligner):
    """`dfc_jax.load` without a network; collects what it was asked for."""
    asked = {}

    def load(**keywords):
        asked.update(keywords)
        return aligner

    monkeypatch.setattr(dfc_jax, "load", load)
    return asked
