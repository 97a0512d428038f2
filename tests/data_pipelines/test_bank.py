"""Groups of examples are drawn as often as they shall."""

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.bank import bank_of


def test_groups_are_drawn_as_often_as_they_shall() -> None:
    bank = bank_of([{"n": np.arange(5)}, {"n": np.arange(10, 12)}], (1.0, 3.0))
    places = jax.random.uniform(jax.random.key(0), (4000, 2))
    drawn = np.asarray(jax.vmap(lambda u: bank.draw(u[0], u[1]))(places)["n"])
    assert abs(np.mean(drawn >= 10) - 0.75) < 0.03
    # Each of a group as often as the others.
    assert abs(np.mean(drawn[drawn >= 10] == 10) - 0.5) < 0.03
    assert set(drawn) == {0, 1, 2, 3, 4, 10, 11}


def test_a_group_without_examples_is_never_drawn() -> None:
    empty, full = {"n": np.zeros(0, int)}, {"n": np.arange(3)}
    for groups, shares in (([empty, full], (5.0, 1.0)), ([full, empty], (1.0, 5.0))):
        bank = bank_of(groups, shares)
        ends = jnp.linspace(0.0, 0.999, 30)
        drawn = jax.vmap(bank.draw)(ends, ends)["n"]
        assert set(np.asarray(drawn)) == {0, 1, 2}
