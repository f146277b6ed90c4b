"""Which Lakebase is meant: names that Databricks' templates and Apps already use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, Field, SecretStr, StringConstraints

from .fields import plain

_Name = Annotated[str, StringConstraints(strip_whitespace=True)]


class LakebaseSettings(BaseModel):
    """Where the database is: an address of any Postgres, or else a Lakebase."""

    database_url: SecretStr | None = plain("database_url", default=None)
    lakebase_autoscaling_endpoint: _Name | None = plain("lakebase_autoscaling_endpoint", default=None)
    """projects/…/branches/…/endpoints/…: wins over project and branch, and they over the instance."""
    lakebase_autoscaling_project: _Name | None = plain("lakebase_autoscaling_project", default=None)
    lakebase_autoscaling_branch: _Name | None = plain("lakebase_autoscaling_branch", default=None)
    lakebase_instance_name: _Name | None = plain("lakebase_instance_name", default=None)
    """The name of a provisioned instance, or its host name."""
    lakebase_database: _Name = Field(
        default="databricks_postgres",
        validation_alias=AliasChoices("LAKEBASE_DATABASE", "PGDATABASE", "lakebase_database"),
    )
    lakebase_user: _Name | None = Field(
        default=None, validation_alias=AliasChoices("LAKEBASE_USER", "PGUSER", "lakebase_user")
    )
    """Unset: the one that the workspace knows this process as."""
    lakebase_port: int = plain("lakebase_port", default=5432, gt=0, lt=65536)
    lakebase_sslmode: Literal["require", "verify-ca", "verify-full"] = plain("lakebase_sslmode", default="require")

    @property
    def names_database(self) -> bool:
        """Whether a variable says where Postgres is: a DATABASE_URL or a Lakebase."""
        return self.database_url is not None or any(
            (
                self.lakebase_autoscaling_endpoint,
                self.lakebase_autoscaling_project,
                self.lakebase_autoscaling_branch,
                self.lakebase_instance_name,
            )
        )
