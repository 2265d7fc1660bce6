"""Messages as Parquet has them: role and content, and the fields that some message of the data has."""

from collections.abc import Collection, Iterable

import pyarrow as pa

from pipeline.core.messages import Messages

FIELDS = {
    "role": pa.string(),
    "content": pa.string(),
    "weight": pa.int8(),  # 0 where a message is shown and not learnt
    "tool_calls": pa.string(),
    "name": pa.string(),
    "tool_call_id": pa.string(),
}


def fields_of(conversations: Iterable[Messages]) -> set[str]:
    """Return the fields that messages have."""
    return {field for messages in conversations for message in messages for field in message}


def schema_of(fields: Collection[str]) -> pa.Schema:
    """Return the schema of a table of conversations whose messages have these fields, in the same order always."""
    message = pa.struct([(name, kind) for name, kind in FIELDS.items() if name in fields])
    return pa.schema([("messages", pa.list_(message))])


def completed(messages: Messages, fields: Collection[str]) -> Messages:
    """Return messages with all of these fields, as a table of them gives each back."""
    for message in messages:
        if "weight" in fields:
            message.setdefault("weight", 1)
        if "tool_calls" in fields:
            message.setdefault("tool_calls", None)
        if "name" in fields:
            message.setdefault("name", None)
        if "tool_call_id" in fields:
            message.setdefault("tool_call_id", None)
    return messages
