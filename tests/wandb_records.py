"""Reads what an offline wandb run recorded: the same file that `wandb sync` sends later."""

import json
import struct
import time


def scan(path):
    """Yield the records of a .wandb file: LevelDB's log format behind a header of 7 bytes.

    Blocks of 32 KiB hold chunks of crc (4), length (2), type (1: whole, 2 first, 3 middle, 4 last).
    """
    data, position, record = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def read_records(folder):
    """Wait until wandb's own process has written the end of the run, then return what it holds."""
    for _ in range(100):
        found = parse_records(folder)
        if found["exit"] is not None:
            break
        time.sleep(0.2)
    return found


def parse_records(folder):
    """Return the only run below a folder.

    {"run", "config", "summary": name -> value, "history": list, "files", "alerts", "artifacts":
    name -> (type, aliases), "exit": code or None}.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = {"run": None, "config": {}, "summary": {}, "history": [], "files": set()}
    found |= {"alerts": [], "artifacts": {}, "exit": None}
    for data in scan(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= values(record.run.config.update)
        elif kind == "config":
            found["config"] |= values(record.config.update)
        elif kind == "summary":
            found["summary"] |= values(record.summary.update)
        elif kind == "history":
            found["history"].append(values(record.history.item))
        elif kind == "files":
            found["files"] |= {item.path for item in record.files.files}
        elif kind == "alert":
            found["alerts"].append(record.alert.title)
        elif kind == "artifact":
            found["artifacts"][record.artifact.name] = (
                record.artifact.type,
                list(record.artifact.aliases),
            )
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def values(items):
    """Return name -> value of a record's items."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
