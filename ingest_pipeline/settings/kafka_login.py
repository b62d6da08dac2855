"""Checks across several Kafka settings, and the names of Kafka settings in other programs."""

import re
from collections.abc import Mapping

MECHANISMS = ("GSSAPI", "OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
"""The mechanisms of librdkafka. Java's clients have others, such as AWS_MSK_IAM."""

_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SERVERS = "KAFKA_BOOTSTRAP_SERVERS"
_PROTOCOL = "KAFKA_SECURITY_PROTOCOL"
_MECHANISM = "KAFKA_SASL_MECHANISM"
_FOREIGN_NAMES: tuple[tuple[str, str], ...] = (
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


def intended_variable(key: str) -> str:
    """KAFKA_URL, a name of other programs → KAFKA_BOOTSTRAP_SERVERS. "" for an unknown name."""
    name = key.removeprefix("KAFKA_")
    return next((variable for pattern, variable in _FOREIGN_NAMES if re.fullmatch(pattern, name)), "")


def combination_problems(properties: Mapping[str, str]) -> dict[str, str]:
    """Variable → problem, for properties that are valid alone and contradict another property."""
    problems: dict[str, str] = {}
    protocol = properties.get("security.protocol", "plaintext").upper()
    for broker in properties["bootstrap.servers"].split(","):
        scheme, separator, _ = broker.rpartition("://")
        if separator and scheme.upper() != protocol:
            problems[_SERVERS] = f"names a broker with {scheme}://, but {_PROTOCOL} is {protocol}: they must agree"
    mechanism = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms") or ""
    if mechanism and mechanism not in MECHANISMS:
        problems[_MECHANISM] = f"must be {' or '.join(MECHANISMS)}, not {mechanism[:60]!r}"
    if not protocol.startswith("SASL_"):
        return problems
    if not mechanism:
        problems[_MECHANISM] = (
            f"must be set, since {_PROTOCOL} is {protocol}: for example {' or '.join(_PASSWORD_MECHANISMS)}"
        )
    elif mechanism in _PASSWORD_MECHANISMS:
        for name, variable in (("sasl.username", "KAFKA_SASL_USERNAME"), ("sasl.password", "KAFKA_SASL_PASSWORD")):
            if name not in properties:
                problems[variable] = f"must be set, since {_MECHANISM} is {mechanism}"
    return problems
