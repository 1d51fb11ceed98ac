"""Every setting of the service, read from the environment (prefix `GEOROUTER_`) in this one place.

A setting that does not parse is refused at start with its name; nothing else in the project reads
the environment. `Settings` is a plain value: tests and the demo construct it with arguments.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from limits import parse
from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.addresses import ADDRESS


def default_data_dir() -> Path:
    """Where data lives unless told otherwise.

    For root a place that the unprivileged user who runs PostgreSQL can reach; otherwise the user's
    own data folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/georouter")
    return Path.home() / ".local" / "share" / "georouter"


OFF = "off"

STORES = ("file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
"""Schemes of URLs that datasets can be kept at."""


def _a_rate(rate: str) -> str:
    if rate != OFF:
        try:
            parse(rate)
        except ValueError:
            raise ValueError(f"{rate!r} is no rate such as 600/minute, nor {OFF}") from None
    return rate


Rate = Annotated[str, AfterValidator(_a_rate)]


class Settings(BaseSettings):
    """The service's settings; each is the environment variable `GEOROUTER_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="GEOROUTER_", extra="ignore", frozen=True)

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL to use. Unset: an embedded one is started in the data directory.",
    )
    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default_factory=default_data_dir,
        description="Folder of the embedded database, of boundary datasets or copies of them, and "
        "of what was fetched to build them (`cache`).",
    )
    catalogue: Path | None = Field(
        default=None,
        description="Catalogue of boundary sources of your own: adds to the one shipped, and "
        "replaces sources of the same name.",
    )
    datasets: str | None = Field(
        default=None,
        description="Where the artefacts of datasets are kept: a folder, or an object store such "
        "as s3://bucket/prefix. Unset: the folder `datasets` of the data directory.",
    )
    rules: Path | None = Field(
        default=None,
        description="Folder with rules of your own: categories.toml, agreements.toml, "
        "successions.toml. Each replaces the one shipped.",
    )
    host: str = Field(default="127.0.0.1", description="Address the web process listens on.")
    port: int = Field(
        default=8080, ge=0, le=65535, description="Port the web process listens on; 0 takes any."
    )
    database_pool: PositiveInt = Field(
        default=10, description="Database connections of one process at most."
    )
    max_body_bytes: PositiveInt = Field(
        default=65536, description="Largest request body accepted, in bytes."
    )
    max_batch_bytes: PositiveInt = Field(
        default=1_048_576, description="The same of a batch of reports."
    )
    photo_max_bytes: int = Field(
        default=12_000_000, gt=0, le=100_000_000, description="Largest photo accepted, in bytes."
    )
    photos: str | None = Field(
        default=None,
        description="URL of the object store for photos: file://, s3://, gs:// or az://. Unset: "
        "the folder `photos` of the data directory.",
    )
    public_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^/?#\s]+(/[^?#\s]*[^/?#\s])?$",
            description="Where councils reach the web processes, without a slash at the end, such "
            "as `https://georouter.example`: links to photos begin with it. Unset: host and port.",
        ),
    ] = None
    max_streams: PositiveInt = Field(
        default=1000, description="Open streams of events that one web process serves at most."
    )
    rate_key: Rate = Field(
        default="6000/minute", description="Requests of one API key at most, or `off`."
    )
    rate_address: Rate = Field(
        default="300/minute",
        description="Requests from one public address (of IPv6, one /64) at most, or `off`.",
    )
    rate_reports: Rate = Field(
        default="60/hour",
        description="Of these, reports posted at most, each of a batch included, or `off`.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Networks of the proxies whose X-Forwarded-For is believed, as a JSON list.",
    )
    retain_address_hours: PositiveInt = Field(
        default=24, description="Hours that the keyed hash of a reporter's address is kept."
    )
    retain_contact_days: PositiveInt = Field(
        default=180, description="Days after a report is closed that contact details are kept."
    )
    retain_contact_most_days: PositiveInt = Field(
        default=730, description="Days after a report's receipt that they are kept at most."
    )
    retain_photos_days: PositiveInt = Field(
        default=730, description="Days after a report's receipt that its photos are kept."
    )
    retain_answers_days: PositiveInt = Field(
        default=365, description="Days that what an intake endpoint answered is kept."
    )
    dataset_poll_s: PositiveFloat = Field(
        default=2.0, description="How often a web process looks for a newly activated dataset."
    )
    egress_allow: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Networks that intake endpoints may be in although they are not public, as a "
        'JSON list, e.g. ["127.0.0.0/8"]. Plain http is accepted there too. For development.',
    )
    delivery_timeout_s: PositiveFloat = Field(
        default=15.0, description="Total time an intake endpoint has to answer."
    )
    delivery_lease_s: PositiveFloat = Field(
        default=60.0, description="How long a worker owns a delivery that it is sending."
    )
    worker_concurrency: PositiveInt = Field(
        default=50, description="Deliveries that one worker sends at the same time."
    )
    delivery_mode: Literal["live", "dry_run"] = Field(
        default="dry_run",
        description="`live` sends. `dry_run` settles every delivery and sends nothing to anybody.",
    )
    secret_keys: SecretStr | None = Field(
        default=None,
        description="Keys that seal endpoints' secrets, separated by commas, the newest first. "
        "Unset: those in the file `secret.key` of the data directory, made on first use.",
    )
    smtp_host: str | None = Field(
        default=None, description="Mail server that mail endpoints are reached through."
    )
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description="How the connection to it is encrypted: after STARTTLS, from the start, or not "
        "at all.",
    )
    smtp_user: str | None = Field(default=None, description="User name there, if it wants one.")
    smtp_password: SecretStr | None = Field(default=None, description="Password there.")
    smtp_from: Annotated[
        str | None,
        Field(
            pattern=rf"^{ADDRESS}$",
            description="Address that mail is sent from. Bounces come back to it.",
        ),
    ] = None

    @model_validator(mode="after")
    def _mail_is_whole(self) -> Self:
        if (self.smtp_host is None) != (self.smtp_from is None):
            raise ValueError("GEOROUTER_SMTP_HOST and GEOROUTER_SMTP_FROM go together")
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("GEOROUTER_SMTP_USER and GEOROUTER_SMTP_PASSWORD go together")
        if self.smtp_user is not None and self.smtp_tls == "none":
            raise ValueError("GEOROUTER_SMTP_TLS=none would send the password in the clear")
        return self

    @field_validator("datasets")
    @classmethod
    def _a_store(cls, where: str | None) -> str | None:
        scheme, separator, _ = (where or "").partition("://")
        if separator and scheme not in STORES:
            raise ValueError(f"{scheme}:// is none of {', '.join(STORES)}")
        return where or None

    @field_validator("delivery_lease_s")
    @classmethod
    def _longer_than_an_attempt(cls, lease_s: float, info: ValidationInfo) -> float:
        if lease_s <= info.data.get("delivery_timeout_s", 0.0):
            raise ValueError(
                "must be longer than GEOROUTER_DELIVERY_TIMEOUT_S: a delivery whose lease ends "
                "while it is being sent is sent twice"
            )
        return lease_s

    @property
    def link_base(self) -> str:
        """What links to this service begin with."""
        return self.public_url or f"http://{self.host}:{self.port}"

    @property
    def mails_followers(self) -> bool:
        """Whether those who follow a report can be mailed, with links that lead here."""
        return self.smtp_from is not None and self.public_url is not None and not self.dry_run

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent to anybody."""
        return self.delivery_mode == "dry_run"
