"""Which database the settings name, and what is said of names that cannot be meant."""

from __future__ import annotations

import pytest

from outlast.shared.lakebase import Branch, Endpoint, Instance, Target, target_of
from outlast.shared.settings import SettingsError, load

PROJECT = "projects/shop"
BRANCH = f"{PROJECT}/branches/main"
ENDPOINT = f"{BRANCH}/endpoints/primary"


def target(**names: str) -> Target | None:
    return target_of(load(**{f"lakebase_{name}": value for name, value in names.items()}))


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        ({}, None),
        ({"autoscaling_endpoint": f" {ENDPOINT}\n"}, Endpoint(ENDPOINT)),
        ({"autoscaling_project": "shop ", "autoscaling_branch": " main"}, Branch(BRANCH)),
        ({"autoscaling_project": PROJECT, "autoscaling_branch": "branches/main"}, Branch(BRANCH)),
        ({"autoscaling_branch": BRANCH}, Branch(BRANCH)),
        ({"autoscaling_project": "shop", "autoscaling_branch": BRANCH}, Branch(BRANCH)),
        ({"autoscaling_project": PROJECT, "autoscaling_branch": BRANCH}, Branch(BRANCH)),
        ({"autoscaling_endpoint": " ", "instance_name": " shop "}, Instance("shop")),
    ],
)
def test_what_the_settings_name(names: dict[str, str], meant: Target | None) -> None:
    assert target(**names) == meant


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"autoscaling_endpoint": f"{ENDPOINT}/"}, "LAKEBASE_AUTOSCALING_ENDPOINT: .* is not projects/"),
        ({"autoscaling_endpoint": "primary", "instance_name": "shop"}, "list-endpoints"),
        ({"autoscaling_project": "shop"}, "LAKEBASE_AUTOSCALING_BRANCH is not set"),
        ({"autoscaling_branch": "main"}, "LAKEBASE_AUTOSCALING_PROJECT is not set"),
        ({"autoscaling_project": "shop/", "autoscaling_branch": "main"}, "the ids alone"),
        ({"autoscaling_project": "shop", "autoscaling_branch": ENDPOINT}, "the ids alone"),
        ({"autoscaling_project": "sho", "autoscaling_branch": BRANCH}, "is not of LAKEBASE_AUTOSCALING_PROJECT"),
        ({"instance_name": ENDPOINT}, "is for LAKEBASE_AUTOSCALING_ENDPOINT"),
        ({"instance_name": "https://instance-1.database.cloud.databricks.com/"}, "nor its host name"),
    ],
)
def test_names_that_cannot_be_meant_are_refused_with_what_is(names: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        target(**names)
