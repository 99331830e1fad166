"""Every number that decides what is recommended, supported or stopped, each with its reason.

Numbers that only save time (steps, starts, sizes of batches) stand where they are used.
"""

from __future__ import annotations

# --- what is searched for -------------------------------------------------------------------------------------------

#: Standard deviations of the gain over posterior draws that `propose` takes off its mean: a lower confidence bound. The
#: deviation has the doubt about growth with size, which is greatest where gains are: 1 costs .01 of the possible gain.
CAUTION = 0.5
#: Recipes none of whose phases differs in more than this share of its tokens speak for each other, however dense the
#: design is.
LEAST_RADIUS = 0.2
#: However few and far apart measured recipes are, none speaks for one that has less than half of a phase in common.
LARGEST_RADIUS = 0.5
#: Share of the measured recipes whose nearest neighbour is within the trust radius: an outlier does not open it.
NEIGHBOURS = 0.9
#: Percent of gain that one unit of distance beyond the trust radius costs: enough to turn the search around.
RADIUS_PRICE = 50.0
#: Percent of gain that a percent of loss beyond a guard costs: more than it can be worth.
GUARD_PRICE = 20.0
#: The same in a single posterior draw, for a guard that has to hold in every second one; who pays this in the draws in
#: which the guard breaks makes them rare enough.
DRAW_GUARD_PRICE = 1.0
#: Excess over a guard, in percent of loss, that is put down to the search.
GUARD_TOLERANCE = 0.01

#: Differences in the cooldown's share of the tokens, and in the learning rate at its end over the peak, from which runs
#: tell what another one is worth; below, it is kept as they have it.
VARIED_LENGTH, VARIED_END = 0.05, 0.05

# --- what is supported ----------------------------------------------------------------------------------------------

#: Probability to beat the best baseline from which a recommendation is supported.
SURE = 0.9
#: Share of tokens by which a supported recipe may exceed the trust radius: the search is held back, not walled in.
BEYOND_RADIUS = 0.02
#: Times the largest measured size beyond which nothing is supported; the same of its tokens is a warning.
FAR = 10.0
#: A domain that is read this many times as often as by any run is warned of.
REPEATS = 1.5
#: Times the largest measured size from which a recipe is larger than what was measured.
LARGER = 1.2
#: Coverage of 90 % intervals below which a direction of the audit is broken, and the held-out values that it takes to
#: say so: of 8 values that are right nine times in ten, fewer than 6 are inside in 4 % of cases.
BROKEN, ENOUGH_VALUES = 0.75, 8

#: Share of the gain from which one task carries it.
CARRIES = 0.5

# --- what makes no difference ---------------------------------------------------------------------------------------

#: Percent of loss below which recipes are equivalent, whatever the data say.
NEGLIGIBLE = 0.05
#: Share of the gain that a move within one standard deviation of noise may cost at most to count as equivalent.
EQUIVALENT = 0.25
#: Relative difference in size and tokens, and share of the tokens that differ, below which a run is the recipe: data
#: come in whole sequences.
SAME = 0.01

# --- which runs are next, and when to stop --------------------------------------------------------------------------

#: Chance that the recommendation changes below which more runs are not worth their cost.
UNLIKELY = 0.05
#: How many times the value of a cheaper batch a dearer one must have.
CLEARLY = 1.02
#: Share of the spread it resolves that a run counts for where it cannot change the decision alone: ends ties.
CURIOSITY = 1e-3
#: Times as many different recipes as a straight line through every phase's shares has numbers, from which on all runs
#: are chosen for what they bring; found by closed loops, docs/optimizer_benchmarks.md.
EXPLORED = 3.0
#: Shares of the FLOPs and of the runs of a first design that are kept for recipes repeated at larger sizes.
REPEATED, REPEATED_RUNS = 0.3, 0.2
#: Share of both that pays for the check whether ranks move with the peak rate.
RATE_CHECK = 0.2
