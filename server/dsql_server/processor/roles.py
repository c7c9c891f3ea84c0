"""Roles of the engine that are the machinery's own. Only ENGINE_ROLE is a superuser, and no session has it."""

#: The engine's superuser: provisions databases and replays catalog changes. Never runs a session's SQL text as is.
ENGINE_ROLE = "dsql_engine"
#: Loads stored rows and reads write sets; sessions switch to it only around the machinery's own statements.
LOADER_ROLE = "dsql_loader"
#: Plans statements on an empty database; may read and write every table there.
PLANNER_ROLE = "dsql_planner"
ADMIN_ROLE = "admin"
