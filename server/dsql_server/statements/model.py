"""What is known about a statement from its text alone: the values that :func:`dsql_server.statements.classify` returns.

Everything here is immutable, so that one classification can be cached and shared by all sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StatementKind(Enum):
    """The path that a statement takes through the query processor."""

    SELECT = "select"  #: SELECT, VALUES and TABLE, also with data-modifying CTEs (see ``is_dml``)
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    DDL = "ddl"  #: changes the catalog; at most one per transaction
    BEGIN = "begin"  #: BEGIN and START TRANSACTION
    COMMIT = "commit"  #: COMMIT and END
    ROLLBACK = "rollback"  #: ROLLBACK and ABORT
    SET = "set"  #: SET and SET LOCAL of one parameter, SET SESSION CHARACTERISTICS
    RESET = "reset"
    SHOW = "show"
    SET_CONSTRAINTS = "set constraints"
    EXPLAIN = "explain"
    COPY = "copy"
    ANALYZE = "analyze"
    CALL = "call"
    DEALLOCATE = "deallocate"
    OTHER = "other"  #: always refused


class LockStrength(Enum):
    """Row locks of SELECT that exist in Aurora DSQL, weakest first."""

    KEY_SHARE = "key share"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that a statement gets without being run."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None
    position: int | None = None  #: 1-based character of the whole query text
    lifted_by: str | None = None  #: doesn't hold while this boolean parameter of the session is off


class SqlSyntaxError(Exception):
    """The text isn't SQL. Carries the fields of PostgreSQL's error message.

    ``position`` counts characters from 1 in the text that was given, or is None where PostgreSQL gives none.
    """

    def __init__(
        self,
        sqlstate: str,
        message: str,
        position: int | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.position = position
        self.detail = detail
        self.hint = hint


RelationName = tuple[str | None, str]  #: schema (None: by search_path) and name, both as PostgreSQL folds them


@dataclass(frozen=True, slots=True)
class TransactionModes:
    """What BEGIN (or SET SESSION CHARACTERISTICS) asked for; None where it said nothing."""

    isolation: str | None = None  #: always "repeatable read" when the statement isn't refused
    read_only: bool | None = None


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """CREATE INDEX, as far as the build job and the catalog checks need it."""

    name: str | None  #: None: PostgreSQL chooses one
    relation: RelationName
    unique: bool
    is_async: bool
    if_not_exists: bool
    columns: tuple[str | None, ...]  #: key columns; None for an expression
    included: tuple[str, ...]
    has_predicate: bool


@dataclass(frozen=True, slots=True)
class RoleMapping:
    """AWS IAM GRANT role TO 'arn' (``grant``) or AWS IAM REVOKE role FROM 'arn'."""

    grant: bool
    roles: tuple[str, ...]
    arns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """The object that a DDL statement is about."""

    object_type: str  #: "TABLE", "INDEX", "VIEW", "SCHEMA", "ROLE", … as in the command
    names: tuple[RelationName, ...] = ()
    if_exists: bool = False  #: IF EXISTS, or IF NOT EXISTS of a CREATE
    cascade: bool = False
    index: IndexDefinition | None = None
    validates: str | None = None  #: constraint of ALTER TABLE ASYNC … VALIDATE CONSTRAINT
    added_columns: tuple[str, ...] = ()
    dropped_columns: tuple[str, ...] = ()
    new_name: str | None = None  #: of RENAME TO
    identity_columns: tuple[str, ...] = ()  #: of ALTER COLUMN … ADD GENERATED … AS IDENTITY
    mapping: RoleMapping | None = None
    body: tuple[Statement, ...] = ()  #: the statements of CREATE FUNCTION … AS '…'


@dataclass(frozen=True, slots=True)
class Parameter:
    """The configuration parameter of SET, RESET or SHOW."""

    name: str  #: lower case, "all" for RESET ALL and SHOW ALL
    values: tuple[str, ...] | None = None  #: None: TO DEFAULT, RESET and SHOW
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class CallArgument:
    """An argument of CALL: a constant or a parameter."""

    text: str | None = None  #: of a constant; None for NULL and for a parameter
    parameter: int | None = None  #: the n of $n
    is_unfit: bool = False  #: no text, or under a name that the procedure has no argument of


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a query text, classified.

    ``text`` is exactly the client's, from the first to the last token. ``engine_sql`` is what a PostgreSQL 16 engine
    runs for it: the same text with DSQL's own words blanked out, so that error positions stay true (only the default
    precision of numeric columns is put in), and empty where there is nothing for the engine to run. Add ``offset`` to
    a position within either to get the position within the query text.
    """

    text: str
    offset: int  #: characters of the query text before ``text``
    kind: StatementKind
    tag: str  #: command tag without row counts
    engine_sql: str
    refusals: tuple[Refusal, ...] = ()  #: in order of precedence
    is_dml: bool = False  #: may write rows
    copies_in: bool = False  #: COPY … FROM
    is_ddl: bool = False
    is_read_only: bool = False  #: writes no rows, locks none and changes no catalog
    locking: LockStrength | None = None  #: the strongest row lock asked for
    has_on_conflict: bool = False
    has_modifying_cte: bool = False
    returning: bool = False  #: INSERT, UPDATE or DELETE … RETURNING at the top
    returns_rows: bool = False
    functions: frozenset[str] = frozenset()  #: "name", or "schema.name" unless the schema is pg_catalog
    operators: frozenset[str] = frozenset()  #: without their schemas
    relations: frozenset[RelationName] = frozenset()  #: every table, view or sequence named, no CTE names
    targets: frozenset[RelationName] = frozenset()  #: the relations that it inserts into, updates or deletes from
    parameters: int = 0  #: the highest $n
    transaction: TransactionModes | None = None
    parameter: Parameter | None = None
    definition: Definition | None = None
    arguments: tuple[CallArgument, ...] = ()  #: of CALL
    columns: tuple[tuple[RelationName, str], ...] = ()  #: of ANALYZE, each with its table
    explained: Statement | None = None  #: the statement of an EXPLAIN
    options: frozenset[str] = frozenset()  #: options of EXPLAIN that are on, e.g. "analyze"

    @property
    def refusal(self) -> Refusal | None:
        """The refusal that a session with default parameters answers with."""
        return self.refusals[0] if self.refusals else None
