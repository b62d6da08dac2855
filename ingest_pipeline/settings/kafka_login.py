"""Kafka settings that only make sense together, and names that other programs give to the same settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

MECHANISMS = ("GSSAPI", "OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
"""What librdkafka knows. Java's clients know others, such as AWS_MSK_IAM."""

_LOGIN_NEEDED = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SERVERS = "KAFKA_BOOTSTRAP_SERVERS"
_PROTOCOL = "KAFKA_SECURITY_PROTOCOL"
_MECHANISM = "KAFKA_SASL_MECHANISM"
_MEANT: tuple[tuple[str, str], ...] = (
    (
        r"(BOOTSTRAP|BOOTSTRAP_)?(URLS?|URIS?|ADDRS?|ADDRESS(ES)?|ENDPOINTS?|NODES?|HOSTS?|SERVERS?|BROKERS?)"
        r"|BOOTSTRAP(_SERVER)?|BROKERS?_(LIST|URLS?|HOSTS?|ADDR(ESS(ES)?)?)|CONNECT(ION(_STRING)?)?|HOST(NAME)?",
        _SERVERS,
    ),
    (r"(SASL_)?(USER(_?NAME)?|LOGIN)|(CLUSTER_)?API_KEY|SASL_PLAIN_USERNAME", "KAFKA_SASL_USERNAME"),
    (r"(SASL_)?(PASS(WORD|WD)?|SECRET)|(CLUSTER_)?API_SECRET|SASL_PLAIN_PASSWORD", "KAFKA_SASL_PASSWORD"),
    (r"SASL_JAAS_CONFIG|JAAS_CONFIG", "KAFKA_SASL_USERNAME, and KAFKA_SASL_PASSWORD"),
    (r"(SASL_)?(MECH|AUTH|AUTH_MECHANISM|AUTH_TYPE)|MECHANISM|SASL", _MECHANISM),
    (r"(SECURITY_)?(PROTOCOL|SECURITY|TLS|SSL)|(USE|ENABLE)_(TLS|SSL)|(TLS|SSL)_ENABLED?", _PROTOCOL),
    (
        r"((TLS|SSL)_)?(CA|CA_?CERT|CA_?FILE|CA_?PATH|CA_LOCATION|CA_CERT_FILE|CERTIFICATE_AUTHORITY)"
        r"|SSL_TRUSTSTORE_(LOCATION|FILE|PATH)",
        "KAFKA_SSL_CA_LOCATION",
    ),
    (r"((TLS|SSL)_)?(CLIENT_)?CERT(IFICATE)?(_?(FILE|PATH))?", "KAFKA_SSL_CERTIFICATE_LOCATION"),
    (r"((TLS|SSL)_)?(CLIENT_)?(PRIVATE_)?KEY(_?(FILE|PATH))?", "KAFKA_SSL_KEY_LOCATION"),
    (r"(CONSUMER_)?GROUP(_NAME)?|CONSUMER_GROUP_ID", "KAFKA_GROUP_PREFIX"),
)


def meant(key: str) -> str:
    """The variable that a KAFKA_* name of other programs stands for: KAFKA_URL is KAFKA_BOOTSTRAP_SERVERS."""
    name = key.removeprefix("KAFKA_")
    return next((variable for pattern, variable in _MEANT if re.fullmatch(pattern, name)), "")


def problems(properties: Mapping[str, str]) -> dict[str, str]:
    """Variable → what is wrong, where the properties are usable one by one and not together."""
    found: dict[str, str] = {}
    protocol = properties.get("security.protocol", "plaintext").upper()
    for broker in properties["bootstrap.servers"].split(","):
        scheme, separator, _ = broker.rpartition("://")
        if separator and scheme.upper() != protocol:
            found[_SERVERS] = f"names a broker with {scheme}://, and {_PROTOCOL} is {protocol}: they must agree"
    mechanism = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms") or ""
    if mechanism and mechanism not in MECHANISMS:
        found[_MECHANISM] = f"must be {' or '.join(MECHANISMS)}, not {mechanism[:60]!r}"
    if not protocol.startswith("SASL_"):
        return found
    if not mechanism:
        found[_MECHANISM] = f"must be set, since {_PROTOCOL} is {protocol}: {' or '.join(_LOGIN_NEEDED)}, for example"
    elif mechanism in _LOGIN_NEEDED:
        for name, variable in (("sasl.username", "KAFKA_SASL_USERNAME"), ("sasl.password", "KAFKA_SASL_PASSWORD")):
            if name not in properties:
                found[variable] = f"must be set, since {_MECHANISM} is {mechanism}"
    return found
