"""``python -m dsql_server.cli``: the command without its console script."""

from dsql_server.cli import main

if __name__ == "__main__":
    main()
