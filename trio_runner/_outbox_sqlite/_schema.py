"""The tables of an outbox's file, and the marks by which it is known as one."""

APPLICATION_ID = 0x74724F42
"""The `PRAGMA application_id` of an outbox."""

SCHEMA_VERSION = 1
"""The `PRAGMA user_version`, raised when older versions of this package could not read the file."""

SCHEMA = f"""
CREATE TABLE messages (
    sequence_number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,       -- the JSON text, as `protocol.pack` gives it: a zlib stream
    crc INTEGER NOT NULL,     -- of the body as it stands here
    tried INTEGER NOT NULL,   -- 1 if it was sent and may have arrived
    taken_at REAL NOT NULL    -- seconds since the epoch
);
CREATE TABLE set_aside (
    sequence_number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    taken_at REAL NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
