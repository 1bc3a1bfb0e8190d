"""duly: functions that run when they should, exactly once.

Queries, mutations and actions are plain Python functions; `ctx.db` is a transactional document database;
`ctx.scheduler` lives in that same database, so that a scheduled mutation's effects, the end of its job and the
jobs it schedules are one commit.
"""

from duly.app import App
from duly.ctx.context import ActionCtx, MutationCtx, QueryCtx
from duly.ctx.crons import crons
from duly.ctx.db.pagination import Page, PaginationOpts
from duly.ctx.sync_context import SyncActionCtx
from duly.declare.cron_jobs import cron_jobs
from duly.declare.http_router import http_router
from duly.declare.references import api, internal
from duly.decorators import action, internal_action, internal_mutation, internal_query, mutation, query
from duly.errors import (
    AlreadyCompletedError,
    AppError,
    ArgumentValidationError,
    DocumentNotFoundError,
    DulyError,
    FunctionError,
    FunctionNotFoundError,
    InvalidIdError,
    InvalidScheduleError,
    LimitError,
    LoadError,
    QueryError,
    ReturnsValidationError,
    SchemaValidationError,
    StoreError,
    StoreGoneError,
    StoreInUseError,
    StoreLostError,
    ValidationError,
)
from duly.limits import Limits
from duly.values.plain import UNSET
from duly.values.schema.annotations import Id
from duly.values.schema.documents import id_of
from duly.values.schema.tables import define_schema, define_table
from duly.values.schema.v import v

__all__ = [
    "UNSET",
    "ActionCtx",
    "AlreadyCompletedError",
    "App",
    "AppError",
    "ArgumentValidationError",
    "DocumentNotFoundError",
    "DulyError",
    "FunctionError",
    "FunctionNotFoundError",
    "Id",
    "InvalidIdError",
    "InvalidScheduleError",
    "LimitError",
    "Limits",
    "LoadError",
    "MutationCtx",
    "Page",
    "PaginationOpts",
    "QueryCtx",
    "QueryError",
    "ReturnsValidationError",
    "SchemaValidationError",
    "StoreError",
    "StoreGoneError",
    "StoreInUseError",
    "StoreLostError",
    "SyncActionCtx",
    "ValidationError",
    "action",
    "api",
    "cron_jobs",
    "crons",
    "define_schema",
    "define_table",
    "http_router",
    "id_of",
    "internal",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "mutation",
    "query",
    "v",
]
