"""The schema ``sys``: what Aurora DSQL has beside PostgreSQL's catalog.

Left out are functions whose answer an engine can't know, or whose meaning is not documented: cluster_size,
current_session_id, current_transaction_id, decode_job_*, fetch_seq_data_tuple, get_key_desc, iam_session_user,
job_err_msg.
"""

from __future__ import annotations

#: Aurora DSQL's default limit on a cluster's storage, in bytes.
CLUSTER_SIZE_LIMIT_BYTES = 10 * 1024**4

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

SYS_SCHEMA_SQL = (
    "CREATE SCHEMA sys",
    "GRANT USAGE ON SCHEMA sys TO PUBLIC",
    "CREATE TABLE sys.jobs (job_id text PRIMARY KEY, status text, details text, job_type text, class_id oid, "
    "object_id oid, object_name text, start_time timestamptz, update_time timestamptz)",
    "CREATE TABLE sys.iam_pg_role_mappings (iam_oid oid, arn text, pg_role_oid oid, pg_role_name text, "
    "grantor_pg_role_oid oid, grantor_pg_role_name text, PRIMARY KEY (pg_role_name, arn))",
    "GRANT SELECT ON sys.jobs, sys.iam_pg_role_mappings TO PUBLIC",
    "CREATE FUNCTION sys.dsql_major_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    "CREATE FUNCTION sys.cluster_size_limit() RETURNS bigint LANGUAGE sql IMMUTABLE "
    f"AS 'SELECT {CLUSTER_SIZE_LIMIT_BYTES}::bigint'",
    f"CREATE FUNCTION sys.uuid_to_base32_str(uuid) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $${_UUID_TO_TEXT}$$",
    "CREATE FUNCTION sys.base32_str_to_uuid(text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT "
    f"AS $${_TEXT_TO_UUID}$$",
    f"CREATE FUNCTION sys.base_type_oid(oid) RETURNS oid LANGUAGE sql STABLE STRICT AS $${_BASE_TYPE}$$",
    "CREATE PROCEDURE sys.wait_for_job(INOUT job_id text) LANGUAGE plpgsql AS $$BEGIN "
    "RAISE EXCEPTION 'answered by the front end'; END$$",
)
