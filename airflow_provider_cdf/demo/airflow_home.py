"""What an ``AIRFLOW_HOME`` needs before its processes start."""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import sqlite3
from pathlib import Path

from airflow_provider_cdf.demo.airflow_api import LocalAirflowError

#: What ``[database] sql_alchemy_connect_args`` names.
SQLITE_PATIENCE = "sqlite_patience.CONNECT_ARGS"


def write_secrets(config: Path) -> None:
    """
    Write an ``airflow.cfg`` with nothing but secrets, unless there is one.

    The first of Airflow's processes would do so, but two are about to start at the same time.

    :param config: the file
    """
    if config.exists():
        return
    fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    config.touch(mode=0o600)
    config.write_text(
        f"[core]\nfernet_key = {fernet_key}\n"
        f"[api]\nsecret_key = {secrets.token_urlsafe(32)}\n"
        f"[api_auth]\njwt_secret = {secrets.token_urlsafe(64)}\n"
    )


def write_patience(home: Path) -> None:
    """
    Let Airflow's processes wait for each other's writes for a minute instead of five seconds.

    SQLite takes one writer at a time, and a scheduler that finds its database locked ends. The api-server
    keeps the five seconds: it writes its audit log in the event loop, which a transaction of another request
    may need in order to end. Then each waits for the other, and nobody is answered until time is up.

    :param home: the ``AIRFLOW_HOME``, whose ``config`` Airflow imports from
    """
    (home / "config").mkdir(exist_ok=True)
    module, name = SQLITE_PATIENCE.split(".")
    (home / "config" / f"{module}.py").write_text(
        f'import sys\n\n{name} = {{"timeout": 5 if "api-server" in sys.argv else 60}}\n'
    )


def never_reuse_trigger_ids(database: Path) -> None:
    """
    Rebuild the table ``trigger`` of Airflow's SQLite database with AUTOINCREMENT.

    SQLite gives the id of the newest row again once that row is deleted. Airflow remembers triggers by id, so
    a task could inherit the failure of the one before it. Other databases never reuse an id.

    :param database: the file, before Airflow uses triggers
    :raises LocalAirflowError: the table is not as expected
    """
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
        schema = "SELECT type, sql FROM sqlite_master WHERE tbl_name = 'trigger' AND sql IS NOT NULL"
        statements: list[tuple[str, str]] = db.execute(schema).fetchall()
        table = next((sql for kind, sql in statements if kind == "table"), "")
        if "AUTOINCREMENT" in table.upper():
            return
        rebuilt, keys = re.subn(
            r"\bid INTEGER NOT NULL", "id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", table
        )
        key = r"(CONSTRAINT \w+\s+)?PRIMARY KEY\s*\(id\)"
        # Between commas, or the last one in Airflow 2.
        rebuilt, constraints = re.subn(rf"{key}\s*,|,\s*{key}(?=\s*\))", "", rebuilt)
        rebuilt, names = re.subn(r'^CREATE TABLE "?trigger"?', "CREATE TABLE trigger_rebuilt", rebuilt)
        if (keys, constraints, names) != (1, 1, 1):
            raise LocalAirflowError(f"Airflow's table 'trigger' is not as expected: {table}")
        # Off, or dropping the table would delete what refers to it; it cannot be set inside a transaction.
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("BEGIN IMMEDIATE")
        db.execute(rebuilt)
        db.execute('INSERT INTO trigger_rebuilt SELECT * FROM "trigger"')
        db.execute('DROP TABLE "trigger"')
        db.execute('ALTER TABLE trigger_rebuilt RENAME TO "trigger"')
        for kind, sql in statements:
            if kind == "index":
                db.execute(sql)
        db.execute("COMMIT")
