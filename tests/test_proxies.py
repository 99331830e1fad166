"""What one more recipe costs, against the segment tree that would be trained."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.optimizer.next_runs.costs import Prices, Proxies
from mixlaw.recipe import Mixture, Phase, Recipe, Schedule
from mixlaw.runner.plan.tree import plan

MIXTURES = (Mixture({"text": 1.0}), Mixture({"text": 0.5, "code": 0.5}), Mixture({"code": 1.0}))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes that often begin alike: few sizes, seeds, lengths and mixtures."""
    names = draw(st.sampled_from([("init", "cooldown"), ("init", "continue", "cooldown"), ("init",)]))
    phases = [
        Phase(
            name,
            draw(st.sampled_from([200, 300, 500])),
            draw(st.sampled_from(MIXTURES)),
            0.0 if name == "cooldown" else 1.0,
        )
        for name in names
    ]
    schedule = draw(st.sampled_from([Schedule.WSD] * 4 + [Schedule.COSINE]))
    return Recipe(draw(st.sampled_from([1000, 1000, 2000])), tuple(phases), draw(st.integers(0, 1)), schedule=schedule)


def flops_to_do(wanted: list[Recipe], trained: frozenset[str]) -> float:
    """FLOPs of all segments of the tree that leave no checkpoint yet, by 6 N D."""
    tree = plan(wanted)
    return sum(6.0 * s.recipe.params * s.tokens for s in tree.needed(set(), trained) if s.lineage not in trained)


@settings(max_examples=50, deadline=None)
@given(st.lists(recipes(), min_size=1, max_size=6, unique=True), st.lists(recipes(), max_size=4, unique=True))
def test_the_marginal_costs_of_a_batch_add_up_to_the_plan(batch: list[Recipe], queued: list[Recipe]) -> None:
    batch = [recipe for recipe in batch if recipe not in queued]
    proxies = Proxies({1000: 1000}, queued=tuple(queued))
    found = sum(proxies.cost(recipe, batch[:i]) for i, recipe in enumerate(batch))
    assert found == flops_to_do([*queued, *batch], frozenset()) - flops_to_do(queued, frozenset())
    if batch:
        order = list(range(len(batch)))
        whole = [index for index in order if proxies.cost(batch[index], batch[:index]) > 0]
        assert Prices(proxies, batch).total(whole) == sum(proxies.cost(batch[i], batch[:i]) for i in whole)


@settings(max_examples=50, deadline=None)
@given(st.lists(recipes(), min_size=1, max_size=8), st.lists(recipes(), max_size=3), st.integers(0, 3))
def test_prices_of_all_candidates_are_the_costs_of_each(pool: list[Recipe], queued: list[Recipe], bought: int) -> None:
    proxies = Proxies({1000: 1000}, queued=tuple(queued))
    chosen = range(min(bought, len(pool)))
    one_by_one = [max(proxies.cost(recipe, pool[: len(chosen)]), 6.0 * recipe.params) for recipe in pool]
    assert Prices(proxies, pool)(chosen).tolist() == one_by_one


@settings(max_examples=50, deadline=None)
@given(st.lists(recipes(), min_size=1, max_size=5, unique=True), recipes())
def test_a_recipe_costs_what_its_checkpoints_leave_to_do(done: list[Recipe], recipe: Recipe) -> None:
    # Every segment of what is done left a checkpoint; where the new recipe leaves a trunk between two of them, the
    # stretch is trained again from the one before.
    if recipe in done:
        return
    segments = plan(done).segments
    trained = frozenset(segment.lineage for segment in segments)
    proxies = Proxies({1000: 1000}, measured=tuple(done), checkpoints=tuple((s.recipe, s.stop) for s in segments))
    measured = {r.lineage for r in done}
    tree = plan([*done, recipe])
    again = [s for s in tree.needed(measured, trained) if s.lineage not in trained]
    assert proxies.cost(recipe) == sum(6.0 * s.recipe.params * s.tokens for s in again)


def test_the_start_is_named() -> None:
    trunk = Phase("init", 800, MIXTURES[1])
    one, two = (Recipe(1000, (trunk, Phase("cooldown", 200, mixture, 0.0))) for mixture in MIXTURES[:2])
    assert Proxies({1000: 1000}).start(two) == (None, 0)
    assert Proxies({1000: 1000}).start(two, [one]) == (one, 800)
    assert Proxies({1000: 1000}, queued=(one,)).start(two) == (one, 800)
    assert Proxies({1000: 1000}, checkpoints=((one, 1000),)).start(two) == (None, 0)
    assert Proxies({1000: 1000}, checkpoints=((one, 1000), (one, 800))).start(two) == (one, 800)


def test_a_repeat_takes_the_first_seed_that_is_free() -> None:
    one = Recipe(1000, (Phase("init", 800, MIXTURES[0]),))
    again = Proxies({1000: 1000}, measured=(one,)).fresh(one)
    assert (again.seed, again.phases) == (1, one.phases)
    assert Proxies({1000: 1000}, measured=(one,), queued=(again,)).fresh(one).seed == 2
