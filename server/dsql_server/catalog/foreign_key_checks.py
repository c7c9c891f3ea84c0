"""Makes PostgreSQL check a foreign key when it would check it in a database that holds all rows.

Rows that a query processor loads look as if the transaction had inserted them. For PostgreSQL that is a reason to look
for their parents when they are loaded, and again at every update of them, whatever it changes. So the triggers that
check referencing rows get conditions: none for loads, and for an update only if it changes the key, or if the row is
the transaction's own (whose first check, if deferred, has then become void).

A trigger's condition can't be given to one that belongs to a constraint, but copied from a trigger that can have it.
The function runs at the end of every statement that may add a foreign key, in sessions and in replays alike.
"""

from __future__ import annotations

_OWN_ROW = "OLD.xmin = pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid"

#: Run as the superuser, while system tables may be changed.
FOREIGN_KEY_CHECKS_SQL = (
    f"""CREATE FUNCTION pg_catalog.engine_condition_foreign_keys() RETURNS event_trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET allow_system_table_mods = on AS $$
    DECLARE
      found record;
      event text;
      condition text;
    BEGIN
      FOR found IN
        SELECT t.oid, t.tgrelid, t.tgfoid = '"RI_FKey_check_ins"'::regproc AS is_insert, c.conkey
        FROM pg_trigger t JOIN pg_constraint c ON c.oid = t.tgconstraint
        WHERE t.tgfoid IN ('"RI_FKey_check_ins"'::regproc, '"RI_FKey_check_upd"'::regproc) AND t.tgqual IS NULL
      LOOP
        IF found.is_insert THEN
          event := 'INSERT';
          condition := 'current_user <> ''dsql_loader''';
        ELSE
          event := 'UPDATE';
          SELECT string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I OR ', attname), '') || '{_OWN_ROW}'
            INTO condition FROM pg_attribute WHERE attrelid = found.tgrelid AND attnum = ANY (found.conkey);
        END IF;
        EXECUTE format('CREATE TRIGGER engine_condition AFTER %s ON %s FOR EACH ROW WHEN (%s) '
          'EXECUTE FUNCTION suppress_redundant_updates_trigger()', event, found.tgrelid::regclass, condition);
        UPDATE pg_trigger SET tgqual = (SELECT tgqual FROM pg_trigger
          WHERE tgrelid = found.tgrelid AND tgname = 'engine_condition') WHERE oid = found.oid;
        EXECUTE format('DROP TRIGGER engine_condition ON %s', found.tgrelid::regclass);
      END LOOP;
    END $$""",
    "CREATE EVENT TRIGGER engine_condition_foreign_keys ON ddl_command_end "
    "WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA') "
    "EXECUTE FUNCTION pg_catalog.engine_condition_foreign_keys()",
)
