"""The schema ``sys``: what Aurora DSQL has beside PostgreSQL's catalog.

Left out are functions that only Aurora DSQL's own code calls and whose arguments nobody has published: decode_job_*,
fetch_seq_data_tuple, get_key_desc, job_err_msg.

Stored are jobs and mappings in tables among PostgreSQL's own, where no client looks. The views upon them tell an object
by the number that it has in the session's own engine database: numbers differ from one database to the next.
"""

from __future__ import annotations

from dsql_server.statements.settings import OWN_TABLES_PREFIX

#: Schema and names of the tables that hold the rows behind the views of ``sys``.
STORED_SCHEMA = "pg_catalog"
JOBS_TABLE = f"{OWN_TABLES_PREFIX}jobs"
MAPPINGS_TABLE = f"{OWN_TABLES_PREFIX}iam_pg_role_mappings"

#: What a session's connection to its engine is told about the session: parameters by these names.
SESSION_ID_PARAMETER = "dsqlkit.session_id"
IAM_USER_PARAMETER = "dsqlkit.iam_session_user"
CLUSTER_SIZE_PARAMETER = "dsqlkit.cluster_size"
CLUSTER_SIZE_LIMIT_PARAMETER = "dsqlkit.cluster_size_limit"
TLS_PARAMETER = "dsqlkit.tls"  #: protocol, cipher and its bits, with a blank in between

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"

#: Sixteen bytes as 26 characters of five bits, the last two bits being zero.
_UUID_TO_TEXT = f"""
SELECT pg_catalog.string_agg(
  pg_catalog.substr('{_BASE32}', pg_catalog.substring(bits, 5 * n + 1, 5)::bit(5)::int + 1, 1), '' ORDER BY n)
FROM (SELECT ('x' || pg_catalog.replace($1::text, '-', ''))::bit(128) || B'00') AS b(bits),
  pg_catalog.generate_series(0, 25) n
"""

_TEXT_TO_UUID = f"""
DECLARE bits text := '';
BEGIN
  IF $1 !~ '^[a-z2-7]{{25}}[aeimquy4]$' THEN
    RAISE EXCEPTION 'Unable to convert text to UUID' USING ERRCODE = '22P02';
  END IF;
  SELECT pg_catalog.string_agg(
      (pg_catalog.strpos('{_BASE32}', pg_catalog.substr($1, n, 1)) - 1)::bit(5)::text, '' ORDER BY n)
    INTO bits FROM pg_catalog.generate_series(1, 26) n;
  RETURN (SELECT pg_catalog.string_agg(
      pg_catalog.to_hex(pg_catalog.substr(bits, 4 * n + 1, 4)::bit(4)::int), '' ORDER BY n)
    FROM pg_catalog.generate_series(0, 31) n)::uuid;
END
"""

#: The type itself, or what a domain is made of.
_BASE_TYPE = """
WITH RECURSIVE types(oid, base, typtype) AS (
  SELECT t.oid, t.typbasetype, t.typtype FROM pg_catalog.pg_type t WHERE t.oid = $1
  UNION ALL
  SELECT t.oid, t.typbasetype, t.typtype FROM pg_catalog.pg_type t JOIN types d ON d.base = t.oid WHERE d.typtype = 'd'
) SELECT types.oid FROM types WHERE types.typtype <> 'd'
"""

#: The relation by the name that the job was given, else the number that the machinery knows it by.
_JOBS_VIEW = f"""
CREATE VIEW sys.jobs AS SELECT j.job_id, j.status, j.details, j.job_type, j.class_id,
  coalesce((SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = j.object_name ORDER BY c.oid LIMIT 1), j.object_id) AS object_id,
  j.object_name, j.start_time, j.update_time
FROM {STORED_SCHEMA}.{JOBS_TABLE} j
"""

_MAPPINGS_VIEW = f"""
CREATE VIEW sys.iam_pg_role_mappings AS SELECT m.iam_oid, m.arn,
  coalesce((SELECT r.oid FROM pg_catalog.pg_authid r WHERE r.rolname = m.pg_role_name), m.pg_role_oid) AS pg_role_oid,
  m.pg_role_name,
  coalesce((SELECT r.oid FROM pg_catalog.pg_authid r WHERE r.rolname = m.grantor_pg_role_name), m.grantor_pg_role_oid)
    AS grantor_pg_role_oid,
  m.grantor_pg_role_name
FROM {STORED_SCHEMA}.{MAPPINGS_TABLE} m
"""

#: Sixteen bytes that stay the same within a transaction and are another's in every other one.
_TRANSACTION_UUID = (
    "pg_catalog.md5(pg_catalog.concat_ws(' ', "
    f"pg_catalog.current_setting('{SESSION_ID_PARAMETER}', true), pg_catalog.now()))::pg_catalog.uuid"
)

#: Types of columns, and whether storage nodes take conditions on them.
_SUPPORTED_DATATYPES = """
SELECT t.name, t.supported_in_pushdown FROM (VALUES
  ('smallint', true), ('integer', true), ('bigint', true), ('real', true), ('double precision', true),
  ('numeric', true), ('character', true), ('character varying', true), ('text', true), ('date', true),
  ('time without time zone', true), ('time with time zone', false), ('timestamp without time zone', true),
  ('timestamp with time zone', true), ('interval', false), ('boolean', true), ('bytea', true), ('uuid', true),
  ('json', false), ('jsonb', false)
) AS t(name, supported_in_pushdown)
"""

SYS_SCHEMA_SQL = (
    "CREATE SCHEMA sys",
    "GRANT USAGE ON SCHEMA sys TO PUBLIC",
    f"CREATE TABLE {STORED_SCHEMA}.{JOBS_TABLE} (job_id text PRIMARY KEY, status text, details text, job_type text, "
    "class_id oid, object_id oid, object_name text, start_time timestamptz, update_time timestamptz)",
    f"CREATE TABLE {STORED_SCHEMA}.{MAPPINGS_TABLE} (iam_oid oid, arn text, pg_role_oid oid, pg_role_name text, "
    "grantor_pg_role_oid oid, grantor_pg_role_name text, PRIMARY KEY (pg_role_name, arn))",
    _JOBS_VIEW,
    _MAPPINGS_VIEW,
    "GRANT SELECT ON sys.jobs, sys.iam_pg_role_mappings TO PUBLIC",
    "CREATE FUNCTION sys.dsql_major_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    "CREATE FUNCTION sys.cluster_size_limit() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT "
    f"NULLIF(pg_catalog.current_setting('{CLUSTER_SIZE_LIMIT_PARAMETER}', true), '')::bigint$$",
    f"CREATE FUNCTION sys.uuid_to_base32_str(uuid) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $${_UUID_TO_TEXT}$$",
    "CREATE FUNCTION sys.base32_str_to_uuid(text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT "
    f"AS $${_TEXT_TO_UUID}$$",
    f"CREATE FUNCTION sys.base_type_oid(oid) RETURNS oid LANGUAGE sql STABLE STRICT AS $${_BASE_TYPE}$$",
    "CREATE FUNCTION sys.cluster_size() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT "
    f"NULLIF(pg_catalog.current_setting('{CLUSTER_SIZE_PARAMETER}', true), '')::bigint$$",
    "CREATE FUNCTION sys.current_session_id() RETURNS text LANGUAGE sql STABLE AS $$SELECT "
    f"pg_catalog.current_setting('{SESSION_ID_PARAMETER}', true)$$",
    "CREATE FUNCTION sys.iam_session_user() RETURNS text LANGUAGE sql STABLE AS $$SELECT "
    f"pg_catalog.current_setting('{IAM_USER_PARAMETER}', true)$$",
    "CREATE FUNCTION sys.current_transaction_id() RETURNS text LANGUAGE sql STABLE AS $$SELECT "
    f"sys.uuid_to_base32_str({_TRANSACTION_UUID})$$",
    "CREATE FUNCTION sys.supported_datatypes(OUT name text, OUT supported_in_pushdown boolean) RETURNS SETOF record "
    f"LANGUAGE sql IMMUTABLE AS $${_SUPPORTED_DATATYPES}$$",
    "CREATE PROCEDURE sys.wait_for_job(INOUT job_id text) LANGUAGE plpgsql AS $$BEGIN "
    "RAISE EXCEPTION 'answered by the front end'; END$$",
)
