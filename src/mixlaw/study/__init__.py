"""A study: a folder and its verbs, in the order of the data."""

from __future__ import annotations

import os

from mixlaw.folder import Folder
from mixlaw.printable import Printable
from mixlaw.study import choosing, learning, next_runs, showing, text, training


class Study(Folder, Printable):
    """A study on disk; every verb reads what is there and writes whole files, so many processes may share one."""

    prepare = training.prepare
    contamination = training.contamination
    plan = training.plan
    run = training.run
    dry_run = training.dry_run

    fit = learning.fit
    predict = learning.predict

    propose = choosing.propose
    what_if = choosing.what_if
    pareto = choosing.pareto
    verify = choosing.verify
    suggest = next_runs.suggest

    plots = property(showing.plots)
    report = showing.report
    export = showing.export
    dashboard = showing.dashboard

    __str__ = text.text


def open_study(path: str | os.PathLike[str]) -> Study:
    """Open the study in a folder; a path to its study.toml means the same.

    Raises:
        InputError: there is none, or its study.toml is wrong.
    """
    return Study(path)
