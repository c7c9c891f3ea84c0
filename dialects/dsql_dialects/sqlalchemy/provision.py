"""What SQLAlchemy's own test suite wants to know of a database; loaded by it, not by applications."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, schema
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.testing.provision import (
    drop_all_schema_objects_post_tables,
    post_configure_engine,
    set_default_schema_on_connection,
    upsert,
)

TEST_SCHEMAS = ("test_schema", "test_schema_2")


@post_configure_engine.for_db("aws_dsql")
def _create_schemas(url: Any, engine: Any, follower_ident: Any) -> None:
    with engine.connect() as connection:
        for name in TEST_SCHEMAS:
            connection.execute(schema.CreateSchema(name, if_not_exists=True))


@set_default_schema_on_connection.for_db("aws_dsql")
def _set_default_schema(config: Any, dbapi_connection: Any, schema_name: str) -> None:
    before = dbapi_connection.autocommit
    dbapi_connection.autocommit = True
    cursor = dbapi_connection.cursor()
    cursor.execute(f"SET search_path = '{schema_name}'")
    cursor.close()
    dbapi_connection.autocommit = before


@drop_all_schema_objects_post_tables.for_db("aws_dsql")
def _drop_domains(config: Any, engine: Any) -> None:
    from sqlalchemy import inspect
    from sqlalchemy.dialects.postgresql import DOMAIN, DropDomainType

    with engine.begin() as connection:
        for domain in inspect(engine).get_domains("*"):
            connection.execute(DropDomainType(DOMAIN(domain["name"], Integer, schema=domain["schema"])))


@upsert.for_db("aws_dsql")
def _upsert(
    config: Any,
    table: Any,
    returning: Any,
    *,
    set_lambda: Any = None,
    sort_by_parameter_order: bool = False,
    index_elements: Any = None,
) -> Any:
    statement = insert(table)
    if set_lambda:
        keys = table.primary_key if index_elements is None else index_elements
        statement = statement.on_conflict_do_update(index_elements=keys, set_=set_lambda(statement.excluded))
    else:
        statement = statement.on_conflict_do_nothing()
    return statement.returning(*returning, sort_by_parameter_order=sort_by_parameter_order)
