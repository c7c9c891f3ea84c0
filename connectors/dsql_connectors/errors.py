"""The connectors' errors under one name; see :mod:`dsql_connectors.core.errors` for the hierarchy."""

from dsql_connectors.core.errors import (
    AttemptFailure,
    CertificateError,
    CommitOutcomeUnknown,
    ConnectorError,
    ConninfoError,
    CredentialsError,
    EndpointUnreachableError,
    FailedTransactionError,
    HostError,
    MissingRegionError,
    NestedTransactionError,
    RetriesExhausted,
    SettingsError,
    TokenRefusedError,
    TransactionUseError,
    UnknownParameterError,
)

__all__ = [
    "AttemptFailure",
    "CertificateError",
    "CommitOutcomeUnknown",
    "ConnectorError",
    "ConninfoError",
    "CredentialsError",
    "EndpointUnreachableError",
    "FailedTransactionError",
    "HostError",
    "MissingRegionError",
    "NestedTransactionError",
    "RetriesExhausted",
    "SettingsError",
    "TokenRefusedError",
    "TransactionUseError",
    "UnknownParameterError",
]
