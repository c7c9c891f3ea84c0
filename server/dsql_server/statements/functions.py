"""Functions of PostgreSQL that client SQL must never run.

The policy: a function of ``pg_catalog`` is refused if it reaches anything but the data and the catalog of the own
transaction. That is the server's files, its log and configuration, other sessions, replication, write-ahead log,
large objects, the statistics counters and the advisory locks that sessions share (an engine is shared by sessions
that must not meet), and SQL hidden in an argument, which nobody could classify. The engine's own privileges are a
second line behind this list. Names are matched unqualified or in ``pg_catalog``; a function of the user's own schema
keeps its name. Functions of extensions (dblink) aren't listed: there is no CREATE EXTENSION.
"""

from __future__ import annotations

from dsql_server.statements.model import Refusal
from dsql_server.statements.settings import refuse_change
from dsql_server.statements.tree import Node, constant, strings

_FILES = """
    pg_current_logfile pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir
    pg_ls_replslotdir pg_ls_tmpdir pg_ls_waldir pg_read_binary_file pg_read_file pg_read_file_old
    pg_relation_filepath pg_stat_file
    pg_import_system_collations
"""
_LARGE_OBJECTS = """
    lo_close lo_creat lo_create lo_export lo_from_bytea lo_get lo_import lo_lseek lo_lseek64 lo_open lo_put lo_tell
    lo_tell64 lo_truncate lo_truncate64 lo_unlink loread lowrite
"""
_OTHER_SESSIONS = """
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_blocking_pids pg_cancel_backend pg_export_snapshot
    pg_isolation_test_session_is_blocked pg_lock_status pg_log_backend_memory_contexts pg_notification_queue_usage
    pg_notify pg_prepared_xact pg_safe_snapshot_blocking_pids pg_stat_get_activity pg_stat_get_backend_activity
    pg_stat_get_backend_client_addr pg_stat_get_backend_client_port pg_terminate_backend pg_try_advisory_lock
    pg_try_advisory_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
"""
_REPLICATION_AND_LOG = """
    pg_backup_start pg_backup_stop pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
    pg_copy_logical_replication_slot pg_copy_physical_replication_slot pg_create_logical_replication_slot
    pg_create_physical_replication_slot pg_create_restore_point pg_current_wal_flush_lsn
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_drop_replication_slot pg_get_replication_slots
    pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_is_wal_replay_paused pg_last_committed_xact
    pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_log_standby_snapshot
    pg_logical_emit_message pg_logical_slot_get_binary_changes pg_logical_slot_get_changes
    pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes pg_promote pg_replication_origin_advance
    pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_oid
    pg_replication_origin_progress pg_replication_origin_session_is_setup pg_replication_origin_session_progress
    pg_replication_origin_session_reset pg_replication_origin_session_setup pg_replication_origin_xact_reset
    pg_replication_origin_xact_setup pg_replication_slot_advance pg_show_replication_origin_status
    pg_stat_get_wal_receiver pg_stat_get_wal_senders pg_switch_wal pg_wal_replay_pause pg_wal_replay_resume
    pg_walfile_name pg_walfile_name_offset pg_split_walfile_name pg_xact_commit_timestamp
    pg_xact_commit_timestamp_origin
"""
_SERVER = """
    pg_hba_file_rules pg_ident_file_mappings pg_reload_conf pg_rotate_logfile pg_rotate_logfile_old
    pg_show_all_file_settings pg_get_backend_memory_contexts pg_get_shmem_allocations pg_nextoid
    pg_stop_making_pinned_objects pg_extension_config_dump pg_stat_clear_snapshot pg_stat_force_next_flush
    pg_stat_reset pg_stat_reset_replication_slot pg_stat_reset_shared pg_stat_reset_single_function_counters
    pg_stat_reset_single_table_counters pg_stat_reset_slru pg_stat_reset_subscription_stats pg_stat_get_slru
    brin_desummarize_range brin_summarize_new_values brin_summarize_range gin_clean_pending_list currtid2
    binary_upgrade_create_empty_extension binary_upgrade_set_missing_value
    binary_upgrade_set_next_array_pg_type_oid binary_upgrade_set_next_heap_pg_class_oid
    binary_upgrade_set_next_heap_relfilenode binary_upgrade_set_next_index_pg_class_oid
    binary_upgrade_set_next_index_relfilenode binary_upgrade_set_next_multirange_array_pg_type_oid
    binary_upgrade_set_next_multirange_pg_type_oid binary_upgrade_set_next_pg_authid_oid
    binary_upgrade_set_next_pg_enum_oid binary_upgrade_set_next_pg_tablespace_oid
    binary_upgrade_set_next_pg_type_oid binary_upgrade_set_next_toast_pg_class_oid
    binary_upgrade_set_next_toast_relfilenode binary_upgrade_set_record_init_privs
"""
_HIDDEN_SQL = """
    query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema table_to_xml
    table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
    database_to_xml database_to_xmlschema database_to_xml_and_xmlschema ts_stat
"""

#: The machinery's own, behind functions that a client may call.
_MACHINERY = """
    engine_checks engine_narrow engine_note engine_setval engine_sizes
"""

DENIED_FUNCTIONS = frozenset(
    " ".join((_FILES, _LARGE_OBJECTS, _OTHER_SESSIONS, _REPLICATION_AND_LOG, _SERVER, _HIDDEN_SQL, _MACHINERY)).split()
)

#: Take a text search configuration by name first. Aurora DSQL has none but "simple".
_TEXT_SEARCH = frozenset(
    {
        "to_tsvector",
        "to_tsquery",
        "plainto_tsquery",
        "phraseto_tsquery",
        "websearch_to_tsquery",
        "ts_headline",
        "json_to_tsvector",
        "jsonb_to_tsvector",
    }
)
_CONFIGURATIONS = """
    arabic armenian basque catalan danish dutch english finnish french german greek hindi hungarian indonesian irish
    italian lithuanian nepali norwegian portuguese romanian russian serbian spanish swedish tamil turkish yiddish
"""
TEXT_SEARCH_CONFIGURATIONS = frozenset(_CONFIGURATIONS.split())


def function_name(call: Node) -> str:
    """ "name", or "schema.name" unless the schema is pg_catalog."""
    names = strings(call["funcname"])
    if len(names) > 1 and names[-2] != "pg_catalog":
        return f"{names[-2]}.{names[-1]}"
    return names[-1]


def refuse_call(name: str, call: Node) -> Refusal | None:
    """Whether a call of a function (named by :func:`function_name`) is refused."""
    if name in DENIED_FUNCTIONS:
        return Refusal("0A000", f"function {name} not supported")
    if name == "set_config":
        return _refuse_set_config(call)
    if name in _TEXT_SEARCH:
        args = call.get("args", [])
        configuration = constant(args[0]) if len(args) > 1 else None
        return refuse_text_search_configuration(configuration)
    if name == "ts_rewrite" and len(call.get("args", [])) == 2:
        return Refusal("0A000", "function ts_rewrite with a query text not supported")
    return None


def refuse_text_search_configuration(name: str | None) -> Refusal | None:
    if name is None or name.removeprefix("pg_catalog.") not in TEXT_SEARCH_CONFIGURATIONS:
        return None
    return Refusal("42704", f'text search configuration "{name}" does not exist')


#: asyncpg turns it off like this while it asks what an array or a composite type is made of; it means nothing here.
_SET_BY_FUNCTION_ONLY = frozenset({"jit"})


def _refuse_set_config(call: Node) -> Refusal | None:
    args = call.get("args", [])
    name = constant(args[0]) if args else None
    if name is None:
        return Refusal(
            "0A000",
            "function set_config with a computed parameter name not supported",
            hint="Write the parameter's name as a string constant.",
        )
    if name.lower() in _SET_BY_FUNCTION_ONLY:
        return None
    return refuse_change(name)
