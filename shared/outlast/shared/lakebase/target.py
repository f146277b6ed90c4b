"""Which database the settings name. Of several ways the first counts: endpoint, branch, instance."""

from __future__ import annotations

import re
from dataclasses import dataclass

from outlast.shared.settings import Settings, SettingsError

_ENDPOINT = re.compile(r"projects/[^/\s]+/branches/[^/\s]+/endpoints/[^/\s]+")
_BRANCH = re.compile(r"projects/[^/\s]+/branches/[^/\s]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of an autoscaling project, by its full name."""

    name: str
    variable = "LAKEBASE_AUTOSCALING_ENDPOINT"

    def __str__(self) -> str:
        return f"the Lakebase endpoint {self.name}"


@dataclass(frozen=True, slots=True)
class Branch:
    """The endpoint of a branch that can be written to."""

    name: str
    """Its full name, projects/…/branches/…"""
    variable = "LAKEBASE_AUTOSCALING_PROJECT and LAKEBASE_AUTOSCALING_BRANCH"

    def __str__(self) -> str:
        return f"the Lakebase branch {self.name}"


@dataclass(frozen=True, slots=True)
class Instance:
    """A provisioned instance, by its name or by its host name."""

    name: str
    variable = "LAKEBASE_INSTANCE_NAME"

    @property
    def is_host(self) -> bool:
        return "." in self.name  # which no name of an instance has

    def __str__(self) -> str:
        return f"the Lakebase instance {self.name}"


Target = Endpoint | Branch | Instance


def target_of(settings: Settings) -> Target | None:
    """None: no variable names one. Raises SettingsError for one that cannot be meant."""
    if endpoint := settings.lakebase_autoscaling_endpoint:
        if not _ENDPOINT.fullmatch(endpoint):
            raise SettingsError(
                f"LAKEBASE_AUTOSCALING_ENDPOINT: {endpoint} is not projects/…/branches/…/endpoints/…, "
                "the name that `databricks postgres list-endpoints projects/PROJECT/branches/BRANCH` shows"
            )
        return Endpoint(endpoint)
    project, branch = settings.lakebase_autoscaling_project, settings.lakebase_autoscaling_branch
    if branch and _BRANCH.fullmatch(branch):
        if project and not branch.startswith(f"projects/{project.removeprefix('projects/')}/"):
            raise SettingsError(
                f"LAKEBASE_AUTOSCALING_BRANCH: {branch} is not of LAKEBASE_AUTOSCALING_PROJECT, {project}: unset one"
            )
        return Branch(branch)
    if project or branch:
        if not (project and branch):
            missing = "LAKEBASE_AUTOSCALING_BRANCH" if project else "LAKEBASE_AUTOSCALING_PROJECT"
            raise SettingsError(f"{missing} is not set: a branch is named by its project and its own name, both")
        project, branch = project.removeprefix("projects/"), branch.removeprefix("branches/")
        if "/" in project or "/" in branch:
            raise SettingsError(
                "LAKEBASE_AUTOSCALING_PROJECT and LAKEBASE_AUTOSCALING_BRANCH: "
                "write the ids alone, as in my-project and main"
            )
        return Branch(f"projects/{project}/branches/{branch}")
    if instance := settings.lakebase_instance_name:
        if "/" in instance:
            raise SettingsError(
                f"LAKEBASE_INSTANCE_NAME: {instance} is neither the name of an instance nor its host name; "
                "projects/… is for LAKEBASE_AUTOSCALING_ENDPOINT or LAKEBASE_AUTOSCALING_BRANCH"
            )
        return Instance(instance)
    return None
