"""The address of a dashboard's view, and who may ask the server for it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("dash", reason="needs the package dash")

from dashboards import TARGET, press_freeze
from mixlaw.dashboard.serve import server_of
from mixlaw.dashboard.view import View
from mixlaw.dashboard.watched import opened
from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.study.choosing import freeze, propose
from studies import on_disk


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of foreign runs with surfaces and a target."""
    return on_disk(tmp_path_factory.mktemp("view"), TARGET)


def test_it_listens_on_this_machine_alone_and_to_nobody_led_here(made: Path) -> None:
    server = server_of(Folder(made), propose, freeze, port=0)
    assert server.host == "127.0.0.1"
    client = server.app.test_client()  # type: ignore[attr-defined]
    assert client.get("/", headers={"Host": f"localhost:{server.port}"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    own = {"Host": f"localhost:{server.port}"}
    for headers, status in (
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),  # a link that was followed
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"}, 403),  # another port of this machine
        ({"Origin": f"http://localhost:{server.port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        assert client.get("/_dash-layout", headers={**own, **headers}).status_code == status, headers
    posted = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}  # a form
    assert client.post("/_dash-update-component", json={}, headers={**own, **posted}).status_code == 403
    with pytest.raises(InputError, match="something listens at"):
        server_of(Folder(made), propose, freeze, port=server.port)
    server.server_close()


def test_an_address_that_makes_no_sense_is_refused_in_one_sentence(made: Path) -> None:
    default = opened(made).view
    for query in ("?params=many", "?weight:nothing=1", "?recipe=xyz", "?cooldown=0.5,0.1", "?eps=-1", "?what=1"):
        with pytest.raises(InputError, match="the address says") as refusal:
            View.read(query, default)
        assert "\n" not in str(refusal.value)


def test_a_view_comes_back_from_its_address(made: Path) -> None:
    study = opened(made)
    recipe = study.problem(study.view).baselines[0]
    view = replace(
        study.view,
        params=123_456,
        cooldown=(0.05, 0.35),
        weights={"task0": 0.0, "task1": 1.5},
        limits={("init", "web"): (0.1, 0.9)},
        eps=0.25,
        task="task1",
        plane=("init", "continue"),
        recipe=recipe,
        hand=True,
        pins={"what the team trains: now": replace(recipe, params=99), "two": recipe},
    )
    query = view.query(study.view)
    assert View.read(query, study.view) == view
    assert study.view.query(study.view) == ""
    assert re.search(r"limit:init:web=0.1,0.9", query)
    assert "tokens" not in query
    limited = replace(study.view, limits={("init", "web"): (0.0, 0.5)})
    assert View.read(study.view.query(limited), limited).target(study.target) == study.view.target(study.target)


def test_what_cannot_be_written_is_said_on_the_page(made: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(made, tmp_path / "study"))
    (study / "proposals").symlink_to("/sys/kernel")  # nobody can write there
    answer = press_freeze(study)
    assert "cannot be read or written" in answer
    (study / "proposals").unlink()
    assert "Frozen as" in press_freeze(study)
