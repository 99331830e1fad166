"""Plots: functions of results that return plotly figures; nothing is computed in them but the look."""

from __future__ import annotations

from mixlaw.plots.comparison import comparison as comparison
from mixlaw.plots.front import front as front
from mixlaw.plots.gain_bars import gains as gains
from mixlaw.plots.landscapes import ternary as ternary
from mixlaw.plots.landscapes import two_phases as two_phases
from mixlaw.plots.loss_curves import Curve as Curve
from mixlaw.plots.loss_curves import losses as losses
from mixlaw.plots.optimum import flat_directions as flat_directions
from mixlaw.plots.optimum import over_sizes as over_sizes
from mixlaw.plots.optimum import spread as spread
from mixlaw.plots.paired import paired as paired
from mixlaw.plots.parity import Parity as Parity
from mixlaw.plots.parity import calibration as calibration
from mixlaw.plots.parity import checked as checked
from mixlaw.plots.parity import fitted as fitted
from mixlaw.plots.parity import held_out as held_out
from mixlaw.plots.parity import parity as parity
from mixlaw.plots.parity import residuals as residuals
from mixlaw.plots.recipes import Node as Node
from mixlaw.plots.recipes import schedule as schedule
from mixlaw.plots.recipes import segment_tree as segment_tree
from mixlaw.plots.responses import extrapolation as extrapolation
from mixlaw.plots.responses import response as response
from mixlaw.plots.suggested_runs import value_of_runs as value_of_runs
from mixlaw.plots.worth import worth as worth
