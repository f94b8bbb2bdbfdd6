"""What is wrong with an input, as its checks say."""

from collections.abc import Callable

from epi2expr_jax.errors import InputError, Problem


def problems_of(check: Callable, *args, **named) -> list[Problem]:
    """Every problem for which a check refuses its arguments; none if it passes them."""
    try:
        check(*args, **named)
    except InputError as error:
        return list(error.problems)
    return []
