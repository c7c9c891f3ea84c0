"""What every engine database holds before the first catalog change: roles, the ``sys`` schema, DSQL's own answers."""

from __future__ import annotations

from dsql_server.catalog.answers import ANSWERS_SQL
from dsql_server.catalog.concealment import CONCEALMENT_SQL
from dsql_server.catalog.foreign_key_checks import FOREIGN_KEY_CHECKS_SQL
from dsql_server.catalog.sys_schema import SYS_SCHEMA_SQL

#: The number of the role ``admin``, as grantors of IAM mappings show it.
ADMIN_ROLE_OID = 15579

BOOTSTRAP_SQL = (
    # Roles. The loader is reached by SET ROLE around the machinery's own statements only.
    "CREATE ROLE dsql_loader NOLOGIN",
    "GRANT pg_read_all_data, pg_write_all_data TO dsql_loader",
    "CREATE ROLE dsql_planner LOGIN",
    "GRANT pg_read_all_data, pg_write_all_data TO dsql_planner",
    "CREATE ROLE admin LOGIN CREATEROLE",
    "SET allow_system_table_mods = on",
    f"UPDATE pg_catalog.pg_authid SET oid = {ADMIN_ROLE_OID} WHERE rolname = 'admin'",
    "RESET allow_system_table_mods",
    # It owns every database, so its members may create in the schema public and create schemas.
    "GRANT dsql_loader TO admin WITH INHERIT TRUE, SET TRUE",
    # Functions that reach files, other sessions or the network never run for a session.
    """DO $$ DECLARE f regprocedure; BEGIN
      FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'pg_catalog' AND (p.proname IN ('pg_terminate_backend', 'pg_cancel_backend',
          'pg_reload_conf', 'pg_rotate_logfile', 'query_to_xml', 'cursor_to_xml', 'database_to_xml', 'pg_notify')
          OR p.proname LIKE 'pg\\_read\\_%' OR p.proname LIKE 'pg\\_ls\\_%' OR p.proname LIKE 'lo\\_%'
          OR p.proname LIKE 'pg\\_advisory%' OR p.proname LIKE 'pg\\_try\\_advisory%' OR p.proname LIKE 'pg\\_file\\_%'
          OR p.proname LIKE '%\\_to\\_xml%' OR p.proname LIKE 'loread' OR p.proname LIKE 'lowrite')
      LOOP EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$""",
    "SET allow_system_table_mods = on",
    *ANSWERS_SQL,
    *FOREIGN_KEY_CHECKS_SQL,
    *SYS_SCHEMA_SQL,
    *CONCEALMENT_SQL,
    "RESET allow_system_table_mods",
)
