"""Plots: functions of results that return plotly figures; nothing is computed in them but the look."""

from __future__ import annotations

from mixlaw.analysis.plots_check import Parity as Parity
from mixlaw.analysis.plots_check import calibration as calibration
from mixlaw.analysis.plots_check import checked as checked
from mixlaw.analysis.plots_check import comparison as comparison
from mixlaw.analysis.plots_check import fitted as fitted
from mixlaw.analysis.plots_check import held_out as held_out
from mixlaw.analysis.plots_check import parity as parity
from mixlaw.analysis.plots_check import residuals as residuals
from mixlaw.analysis.plots_choice import front as front
from mixlaw.analysis.plots_choice import spread as spread
from mixlaw.analysis.plots_gains import gains as gains
from mixlaw.analysis.plots_landscape import ternary as ternary
from mixlaw.analysis.plots_landscape import two_phases as two_phases
from mixlaw.analysis.plots_losses import Curve as Curve
from mixlaw.analysis.plots_losses import losses as losses
from mixlaw.analysis.plots_recipe import Node as Node
from mixlaw.analysis.plots_recipe import schedule as schedule
from mixlaw.analysis.plots_recipe import segment_tree as segment_tree
from mixlaw.analysis.plots_response import extrapolation as extrapolation
from mixlaw.analysis.plots_response import response as response
from mixlaw.analysis.plots_worth import flat_directions as flat_directions
from mixlaw.analysis.plots_worth import over_sizes as over_sizes
from mixlaw.analysis.plots_worth import value_of_runs as value_of_runs
from mixlaw.analysis.plots_worth import worth as worth
