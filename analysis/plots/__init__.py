"""Plots: functions of results that return plotly figures; nothing is computed in them but the look."""

from __future__ import annotations

from mixlaw.analysis.plots.checks import Parity as Parity
from mixlaw.analysis.plots.checks import calibration as calibration
from mixlaw.analysis.plots.checks import checked as checked
from mixlaw.analysis.plots.checks import comparison as comparison
from mixlaw.analysis.plots.checks import fitted as fitted
from mixlaw.analysis.plots.checks import held_out as held_out
from mixlaw.analysis.plots.checks import parity as parity
from mixlaw.analysis.plots.checks import residuals as residuals
from mixlaw.analysis.plots.choices import front as front
from mixlaw.analysis.plots.choices import spread as spread
from mixlaw.analysis.plots.gain_bars import gains as gains
from mixlaw.analysis.plots.landscapes import ternary as ternary
from mixlaw.analysis.plots.landscapes import two_phases as two_phases
from mixlaw.analysis.plots.loss_curves import Curve as Curve
from mixlaw.analysis.plots.loss_curves import losses as losses
from mixlaw.analysis.plots.recipes import Node as Node
from mixlaw.analysis.plots.recipes import schedule as schedule
from mixlaw.analysis.plots.recipes import segment_tree as segment_tree
from mixlaw.analysis.plots.responses import extrapolation as extrapolation
from mixlaw.analysis.plots.responses import response as response
from mixlaw.analysis.plots.worths import flat_directions as flat_directions
from mixlaw.analysis.plots.worths import over_sizes as over_sizes
from mixlaw.analysis.plots.worths import value_of_runs as value_of_runs
from mixlaw.analysis.plots.worths import worth as worth
