"""
What differs between the versions of Airflow that this package works with.

Nothing else asks which Airflow this is. docs/versions.md says what each of these means for a DAG.
"""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

#: Such as ``(3, 3, 2)``.
AIRFLOW_VERSION = Version(__version__).release

#: A task asks Airflow for the states of others (``ti.get_task_states``) and for when it was first
#: rescheduled. In Airflow 2 it runs with the database at hand.
HAS_TASK_API = AIRFLOW_VERSION >= (3, 0)

#: A DAG's callback may ask for the states of tasks. In some older ones of Airflow 3, the DAG processor leaves
#: that question without an answer, and the callback waits until it is killed.
HAS_STATES_IN_CALLBACKS = not HAS_TASK_API or AIRFLOW_VERSION >= (3, 1, 8)

#: The module whose ``mask_secret`` keeps a secret out of logs.
MASKING = (
    "airflow.sdk.log"
    if AIRFLOW_VERSION >= (3, 1)
    else "airflow.sdk.execution_time.secrets_masker"
    if HAS_TASK_API
    else "airflow.utils.log.secrets_masker"
)

#: The function of a task may be a coroutine function.
HAS_COROUTINE_TASKS = AIRFLOW_VERSION >= (3, 2)

#: A task that is deferred and then marked or cleared tells its trigger so (``BaseTrigger.on_kill``).
HAS_ON_KILL = AIRFLOW_VERSION >= (3, 3)

#: The DAG processor calls failure callbacks after the last try only. Those of 3.0 to 3.2 are also called for
#: each try whose worker was lost: their scheduler does not say whether a retry follows.
CALLS_BACK_ONCE = AIRFLOW_VERSION >= (3, 3) or not HAS_TASK_API

#: A connection may be read on an event loop. Before, that masks its secrets by a blocking call, which fails
#: where another call is under way on the same loop; and before 3.1 there is no such thing.
HAS_ASYNC_CONNECTIONS = AIRFLOW_VERSION >= (3, 3, 2)

#: A clear empties the store of task states, which is there from 3.3 on.
CLEAR_EMPTIES_STORE = AIRFLOW_VERSION >= (3, 4)
