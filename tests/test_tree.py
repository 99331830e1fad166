"""The segment tree: what is shared is trained once, and every path adds up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.runner.plan.tree import Segment, Tree, plan

TEXT, CODE, HALF = Mixture({"text": 1.0}), Mixture({"code": 1.0}), Mixture({"text": 0.5, "code": 0.5})


def recipe(*phases: Phase, seed: int = 0, params: int = 1000, schedule: Schedule = Schedule.WSD) -> Recipe:
    return Recipe(params, phases, seed=seed, schedule=schedule)


def init(tokens: int, mixture: Mixture = HALF) -> Phase:
    return Phase("init", tokens, mixture)


def cooldown(tokens: int, mixture: Mixture = TEXT) -> Phase:
    return Phase("cooldown", tokens, mixture, 0.0)


def path(tree: Tree, lineage: str | None) -> list[Segment]:
    """Segments from the initialisation to a lineage."""
    found: list[Segment] = []
    while lineage is not None:
        found.insert(0, tree.by_lineage[lineage])
        lineage = found[0].parent
    return found


def spans(tree: Tree) -> list[tuple[str, int, int]]:
    return [(segment.phase, segment.start, segment.stop) for segment in tree.segments]


def test_cooldowns_branch_from_a_trunk_that_is_trained_once() -> None:
    tree = plan([recipe(init(800), cooldown(200, m)) for m in (TEXT, CODE, HALF)])
    assert spans(tree) == [("init", 0, 800), *[("cooldown", 800, 1000)] * 3]
    trunk = tree.segments[0]
    assert len(trunk.runs) == 3
    assert not trunk.is_run
    assert all(leaf.parent == trunk.lineage and leaf.is_run for leaf in tree.segments[1:])
    assert sum(segment.tokens for segment in tree.segments) == 800 + 3 * 200


def test_a_longer_trunk_continues_a_shorter_one() -> None:
    short, long = recipe(init(300), cooldown(100)), recipe(init(800), cooldown(200))
    tree = plan([long, short])
    assert sorted(spans(tree)) == [
        ("cooldown", 300, 400),
        ("cooldown", 800, 1000),
        ("init", 0, 300),
        ("init", 300, 800),
    ]
    assert [segment.tokens for segment in path(tree, long.lineage)] == [300, 500, 200]


def test_a_recipe_that_is_the_beginning_of_another_ends_inside_it() -> None:
    short, long = recipe(init(300)), recipe(init(800))
    tree = plan([long, short])
    assert [segment.is_run for segment in tree.segments] == [True, True]
    assert [segment.is_leaf for segment in tree.segments] == [False, True], "the second resumes from the first"
    assert tree.segments[0].finished({r.lineage: r for r in tree.recipes}) == short


def test_later_constant_phases_are_shared_as_well() -> None:
    late = [Phase("continue", tokens, CODE) for tokens in (100, 250)]
    tree = plan([recipe(init(800), phase, cooldown(50)) for phase in late])
    assert sorted(spans(tree)) == [
        ("continue", 800, 900),
        ("continue", 900, 1050),
        ("cooldown", 900, 950),
        ("cooldown", 1050, 1100),
        ("init", 0, 800),
    ]


def test_a_constant_phase_after_a_decayed_one_is_no_trunk() -> None:
    tree = plan([recipe(cooldown(200), Phase("on", tokens, CODE)) for tokens in (100, 250)])
    assert spans(tree) == [("cooldown", 0, 200), ("on", 200, 300), ("on", 200, 450)]


def test_other_seeds_sizes_mixtures_and_cosine_share_nothing() -> None:
    one = recipe(init(800), cooldown(200))
    others = [
        recipe(init(800), cooldown(200), seed=1),
        recipe(init(800), cooldown(200), params=2000),
        recipe(init(800, TEXT), cooldown(200)),
        recipe(init(800), cooldown(200), schedule=Schedule.COSINE),
        recipe(init(800), cooldown(100), schedule=Schedule.COSINE),
    ]
    tree = plan([one, *others])
    assert sum(segment.tokens for segment in tree.segments) == sum(r.tokens for r in tree.recipes)
    assert all(len(segment.runs) == 1 for segment in tree.segments)


def test_a_phase_that_decays_is_shared_whole_or_not_at_all() -> None:
    decay = Phase("init", 800, HALF, 0.5)
    whole = plan([recipe(decay, cooldown(200, m)) for m in (TEXT, CODE)])
    assert sum(segment.tokens for segment in whole.segments) == 800 + 400
    apart = plan([recipe(decay), recipe(replace(decay, tokens=400))])
    assert spans(apart) == [("init", 0, 800), ("init", 0, 400)]


def test_cooldowns_of_two_shapes_share_the_trunk_and_nothing_else() -> None:
    shapes = [replace(cooldown(200), decay=decay) for decay in (Decay.LINEAR, Decay.ONE_SQRT)]
    late = Phase("late", 100, CODE, 0.0)
    tree = plan([recipe(init(800), *end) for end in [(shapes[0],), (shapes[1],), (shapes[1], late)]])
    assert spans(tree) == [("init", 0, 800), ("cooldown", 800, 1000), ("cooldown", 800, 1000), ("late", 1000, 1100)]
    assert tree.segments[3].parent == tree.segments[2].lineage


def test_a_recipe_named_twice_is_planned_once() -> None:
    one = recipe(init(800))
    assert plan([one, recipe(init(800))]).recipes == (one,)


def test_what_is_measured_is_left_out_and_what_it_leaned_on_too() -> None:
    recipes = [recipe(init(800), cooldown(200, m)) for m in (TEXT, CODE)]
    tree = plan(recipes)
    trunk, first, second = (segment.lineage for segment in tree.segments)

    def needed(measured: set[str], trained: set[str]) -> list[str]:
        return [segment.lineage for segment in tree.needed(measured, trained)]

    assert needed(set(), set()) == [trunk, first, second]
    assert needed({first}, {trunk, first}) == [second]
    assert needed({first, second}, set()) == [], "a missing trunk that nothing needs is not trained again"
    assert needed({first}, set()) == [trunk, second], "a missing trunk that something needs is"
    assert needed({first}, {second}) == [second], "what is trained needs its evaluation, not its trunk"
    assert tree.untrained({first}, {second}) == []
    assert [segment.lineage for segment in tree.untrained({first}, {trunk})] == [second]


def test_a_segment_survives_json() -> None:
    for segment in plan([recipe(init(800), cooldown(200))]).segments:
        assert Segment.from_json(segment.as_json()) == segment


shares = st.sampled_from([TEXT, CODE, HALF])
tokens = st.integers(1, 6)
random_recipes = st.builds(
    lambda first, late, seed, schedule: recipe(first, *late, seed=seed, schedule=schedule),
    st.builds(Phase, st.just("init"), tokens, shares),
    st.lists(st.builds(Phase, st.just("late"), tokens, shares, st.sampled_from([1.0, 0.0])), max_size=1),
    st.integers(0, 1),
    st.sampled_from([Schedule.WSD, Schedule.WSD, Schedule.COSINE]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(random_recipes, max_size=12), st.data())
def test_every_recipe_is_the_sum_of_its_path_and_is_finished_once(recipes: list[Recipe], data: st.DataObject) -> None:
    tree = plan(recipes)
    done: set[str | None] = {None}
    for segment in tree.segments:
        assert segment.parent in done, "parents come before children"
        assert segment.tokens > 0
        done.add(segment.lineage)
    for one in tree.recipes:
        walked = path(tree, one.lineage)
        assert sum(segment.tokens for segment in walked) == one.tokens
        assert all(one.lineage in segment.runs for segment in walked)
        assert all(a.stop == b.start for a, b in pairwise(walked))
    assert {segment.lineage for segment in tree.segments if segment.is_run} == {one.lineage for one in tree.recipes}

    lineages = [segment.lineage for segment in tree.segments]
    some = st.sets(st.sampled_from(lineages)) if lineages else st.just(set())
    measured, trained = data.draw(some), data.draw(some)
    needed = {segment.lineage for segment in tree.needed(measured, trained)}
    assert {one.lineage for one in tree.recipes} - measured <= needed
    for segment in tree.segments:
        if segment.lineage in needed - trained and segment.parent is not None:
            assert segment.parent in needed | trained, "what is to be trained can start"
