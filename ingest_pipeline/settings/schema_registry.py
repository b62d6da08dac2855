"""The settings of a schema registry."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from .values import Hidden, Shape, Values


def _addresses(value: str) -> str:
    """Returns the addresses unchanged. Raises ValueError."""
    for address in value.split(","):
        if re.fullmatch(r"\s*https?://[^\s/]+\S*\s*", address) is None:
            raise ValueError
        if "@" in address:
            raise ValueError("put the user and the password into SCHEMA_REGISTRY_BASIC_AUTH")
    return value


def _login(value: Hidden) -> Hidden:
    """Returns the login unchanged. Raises ValueError."""
    if re.fullmatch(r"[^:\s]+:.*", value.get_secret_value()) is None:
        raise ValueError
    return value


FilePath = Annotated[str | None, Shape("a path")]


class SchemaRegistrySettings(Values):
    """Settings for streams whose format needs a schema registry."""

    schema_registry_url: Annotated[
        str | None,
        AfterValidator(lambda value: value and _addresses(value)),
        Shape("one or more http:// or https:// addresses with commas between them, without a login"),
    ] = Field(
        default=None,
        description="The addresses of the schema registry for streams whose format is Avro, tried in turn.",
    )
    schema_registry_basic_auth: Annotated[
        Hidden | None, AfterValidator(lambda value: value and _login(value)), Shape("user:password")
    ] = Field(default=None, description="The login for the schema registry.")
    schema_registry_ssl_ca: FilePath = Field(
        default=None,
        description="The file or folder of certificate authorities for the schema registry, instead of certifi's list.",
    )
    schema_registry_ssl_certificate: FilePath = Field(
        default=None, description="The file of the client certificate for the schema registry."
    )
    schema_registry_ssl_key: FilePath = Field(
        default=None, description="The file of the client certificate's key for the schema registry."
    )

    @property
    def schema_registry(self) -> dict[str, str]:
        """Properties of confluent-kafka's SchemaRegistryClient, with the password. Empty without an address."""
        if self.schema_registry_url is None:
            return {}
        login = self.schema_registry_basic_auth
        properties = {
            "url": self.schema_registry_url,
            "basic.auth.user.info": None if login is None else login.get_secret_value(),
            "ssl.ca.location": self.schema_registry_ssl_ca,
            "ssl.certificate.location": self.schema_registry_ssl_certificate,
            "ssl.key.location": self.schema_registry_ssl_key,
        }
        return {name: value for name, value in properties.items() if value is not None}
