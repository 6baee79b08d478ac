"""The requests of the API, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.emulator.rules.fields import Absent, Description, ExternalId, JsonObject, Model

InternalId = Annotated[int, Field(ge=1, le=2**53 - 1)]
Limit = Annotated[int, Field(ge=1, le=1000)]
WorkflowStatus = Literal["RUNNING", "COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"]
# The limit on keys is in the documentation's text only.
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=32)], Annotated[str, Field(max_length=255)]], Field(max_length=10)
]


def _check_unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("must have no value twice")
    return values


class Authentication(Model):
    nonce: str


class WorkflowItem(Model):
    external_id: ExternalId
    description: Absent[Description] = None
    data_set_id: Absent[InternalId] = None
    data_domain_external_id: Absent[Annotated[str, Field(min_length=1, max_length=100)]] = None
    max_concurrent_executions: Annotated[int, Field(ge=1, le=10_000)] | None = None


class WorkflowUpsert(Model):
    items: Annotated[list[WorkflowItem], Field(min_length=1, max_length=1)]


class WorkflowId(Model):
    external_id: ExternalId


class WorkflowDelete(Model):
    items: Annotated[list[WorkflowId], Field(min_length=1, max_length=100)]


class VersionItem(Model):
    workflow_external_id: ExternalId
    version: ExternalId
    workflow_definition: WorkflowDefinition


class VersionUpsert(Model):
    items: Annotated[list[VersionItem], Field(min_length=1, max_length=1)]


class VersionId(Model):
    workflow_external_id: ExternalId
    version: ExternalId


class VersionDelete(Model):
    items: Annotated[list[VersionId], Field(min_length=1, max_length=100)]


class WorkflowFilter(Model):
    external_id: ExternalId
    version: Absent[ExternalId] = None


class VersionsFilter(Model):
    workflow_filters: Absent[Annotated[list[WorkflowFilter], Field(max_length=100)]] = None


class VersionsQuery(Model):
    filter: Absent[VersionsFilter] = None
    limit: Limit = 100
    cursor: Absent[str] = None


class Run(Model):
    authentication: Authentication
    input: Absent[JsonObject] = None
    metadata: Absent[Metadata] = None


class ExecutionsFilter(Model):
    workflow_filters: Absent[Annotated[list[WorkflowFilter], Field(min_length=1, max_length=100)]] = None
    created_time_start: Absent[Annotated[int, Field(ge=0)]] = None
    created_time_end: Absent[Annotated[int, Field(ge=0)]] = None
    status: Absent[
        Annotated[
            list[WorkflowStatus],
            AfterValidator(_check_unique),
            Field(json_schema_extra={"uniqueItems": True}),
        ]
    ] = None


class ExecutionsQuery(Model):
    filter: Absent[ExecutionsFilter] = None
    limit: Limit = 100
    cursor: Absent[str] = None


class Cancel(Model):
    reason: Annotated[str, Field(max_length=500)] = "cancelled"


class Retry(Model):
    authentication: Authentication


class TaskUpdate(Model):
    status: Literal["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"]
    output: Absent[JsonObject] = None


class ScheduleRule(Model):
    trigger_type: Literal["schedule"]
    cron_expression: str
    timezone: Absent[str] = None


class SyncTable(Model):
    """A table of a data modeling query; of its many fields the emulator needs none but the limit."""

    model_config = ConfigDict(extra="allow")

    limit: Absent[int] = None


class DataModelingQuery(Model):
    model_config = ConfigDict(extra="allow")

    with_: Annotated[dict[str, SyncTable], Field(alias="with", min_length=1, max_length=50)]
    select: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=50)]


class DataModelingRule(Model):
    trigger_type: Literal["dataModeling"]
    data_modeling_query: DataModelingQuery
    batch_size: Annotated[int, Field(ge=1, le=1000)]
    batch_timeout: Annotated[int, Field(ge=10, le=86_400)]

    @model_validator(mode="after")
    def _limits_are_the_batch_size(self) -> Self:
        for name in self.data_modeling_query.select:
            table = self.data_modeling_query.with_.get(name)
            if table is None or table.limit != self.batch_size:
                raise ValueError(f"the limit of the table '{name}' that is selected must be the batchSize")
        return self


class UnknownRule(Model):
    """A rule of a kind that the emulator does not have: such triggers fire when they are told to."""

    model_config = ConfigDict(extra="allow")

    trigger_type: Annotated[
        str, Field(min_length=1, json_schema_extra={"not": {"enum": ["schedule", "dataModeling"]}})
    ]


def _kind_of_rule(value: Any) -> str | None:
    found = value.get("triggerType") if isinstance(value, dict) else getattr(value, "trigger_type", None)
    if not isinstance(found, str):
        return None
    return found if found in ("schedule", "dataModeling") else "unknown"


TriggerRule = Annotated[
    Annotated[ScheduleRule, Tag("schedule")]
    | Annotated[DataModelingRule, Tag("dataModeling")]
    | Annotated[UnknownRule, Tag("unknown")],
    Discriminator(
        _kind_of_rule,
        custom_error_type="trigger_type",
        custom_error_message="a rule has a triggerType: schedule, dataModeling",
    ),
]


class TriggerFields(Model):
    external_id: ExternalId
    trigger_rule: TriggerRule
    workflow_external_id: ExternalId
    workflow_version: ExternalId
    input: Absent[JsonObject] = None
    metadata: Absent[Metadata] = None


class TriggerItem(TriggerFields):
    authentication: Authentication


class TriggerUpsert(Model):
    items: Annotated[list[TriggerItem], Field(min_length=1, max_length=1)]


class TriggerDelete(Model):
    items: Annotated[list[WorkflowId], Field(min_length=1, max_length=1)]


class ClientCredentials(Model):
    client_id: str
    client_secret: str


class TokenExchange(Model):
    token_exchange: Literal[True]


class OneshotTokenExchange(Model):
    oneshot_token_exchange: Literal[True]


class SessionsCreate(Model):
    items: Annotated[
        list[ClientCredentials | TokenExchange | OneshotTokenExchange], Field(min_length=1, max_length=1)
    ]


class SessionId(Model):
    id: InternalId


class SessionsByIds(Model):
    items: Annotated[list[SessionId], Field(min_length=1, max_length=1000)]


class SessionsRevoke(Model):
    items: Annotated[list[SessionId], Field(min_length=1)]
