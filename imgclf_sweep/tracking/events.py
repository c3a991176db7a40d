"""TensorBoard event files without TensorFlow: writing the records of one run, and finding out what a run holds.

TensorBoard's own writer and its HParams API load TensorFlow; the record writer and the protocol buffers under them do
not. A file is a sequence of `length, crc, data, crc` (the TFRecord format), each record one `Event`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from .columns import Cell, Column

PREFIX = "events.out.tfevents."
HEADER = struct.Struct("<QI")  # length, masked crc of its 8 bytes
FOOTER = struct.Struct("<I")  # masked crc of the data
PNG_SIZE, PNG_SIZE_AT = struct.Struct(">II"), 16  # width and height, in the chunk that a PNG begins with
TYPES = {"number": api_pb2.DATA_TYPE_FLOAT64, "bool": api_pb2.DATA_TYPE_BOOL, "string": api_pb2.DATA_TYPE_STRING}


class RunWriter:
    """Appends to one run. Every record is flushed, so that a kill loses none and a live TensorBoard sees each epoch.

    step: where a new file begins: 0, or for a later attempt the first step it will write; TensorBoard then drops what
    an earlier file of the run has from there on.
    append: go on in this file, which must end with a whole record, instead of a new one.

    Raises: OSError from every method.
    """

    def __init__(self, directory: Path, *, step: int = 0, append: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = open(append or _new_file(directory), "ab" if append else "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._tags: set[str] = set()
        if append is None:
            self._put(file_version="brain.Event:2")
            self._put(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def config(self, experiment: api_pb2.Experiment) -> None:
        """The columns of the whole sweep; once, before any trial."""
        self._hparams(metadata.EXPERIMENT_TAG, experiment=experiment)

    def start(self, identity: str, cells: Mapping[str, Cell], started: float) -> None:
        """The trial's id and hyperparameters; once in a run: TensorBoard keeps the first for ever."""
        info = plugin_data_pb2.SessionStartInfo(group_name=identity, start_time_secs=started)
        for name, cell in cells.items():
            _set(info.hparams[name], cell)
        self._hparams(metadata.SESSION_START_INFO_TAG, session_start_info=info)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One record of all values that are finite as float32: NaN breaks the table's order, infinity a whole axis."""
        summary = summary_pb2.Summary()
        for tag, number in values.items():
            if not _finite(number):
                continue
            tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[number])
            tensor.tensor_shape.SetInParent()
            value = summary.value.add(tag=tag, tensor=tensor)
            if tag not in self._tags:
                value.metadata.CopyFrom(scalar_metadata.create_summary_metadata(display_name="", description=""))
                self._tags.add(tag)
        if summary.value and step < 2**31:  # one later step makes the dashboard fail for every trial
            self._put(step=step, summary=summary)

    def image(self, step: int, tag: str, png: bytes) -> None:
        """A picture for the Images tab."""
        width, height = PNG_SIZE.unpack_from(png, PNG_SIZE_AT)
        content = [str(width).encode(), str(height).encode(), png]
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=content)
        tensor.tensor_shape.dim.add(size=len(content))
        summary = summary_pb2.Summary()
        value = summary.value.add(tag=tag, tensor=tensor)
        value.metadata.CopyFrom(image_metadata.create_summary_metadata(display_name="", description=""))
        self._put(step=step, summary=summary)

    def end(self, good: bool) -> None:
        """The trial's status; once in a run. Closes the file."""
        status = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
        info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._hparams(metadata.SESSION_END_INFO_TAG, session_end_info=info)
        self.close()

    def close(self) -> None:
        self._file.close()

    def _hparams(self, tag: str, **data: object) -> None:
        summary = summary_pb2.Summary()
        content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
        summary.value.add(tag=tag, tensor=metadata.NULL_TENSOR, metadata=content)
        self._put(step=0, summary=summary)

    def _put(self, **fields: object) -> None:
        self._records.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()


def experiment(columns: list[Column], metrics: list[str], descriptions: Mapping[str, str]) -> api_pb2.Experiment:
    """The dashboard's configuration: columns with their domains, metrics in order."""
    out = api_pb2.Experiment(time_created_secs=time.time())
    for column in columns:
        info = out.hparam_infos.add(name=column.name, display_name=column.display, type=TYPES[column.kind])
        info.differs = column.differs
        if column.interval:
            info.domain_interval.min_value, info.domain_interval.max_value = column.values
        else:
            for value in column.values:
                _set(info.domain_discrete.values.add(), value)
    for tag in metrics:
        name = api_pb2.MetricName(tag=tag)
        out.metric_infos.add(name=name, display_name=tag, description=descriptions.get(tag, ""))
    return out


@dataclass
class Run:
    """What a run's directory holds. `whole` is its last file if that ends with a whole record, fit to append to."""

    started: bool = False
    ended: bool = False
    files: list[Path] = field(default_factory=list)
    whole: Path | None = None

    @classmethod
    def read(cls, directory: Path) -> Run:
        """Look for start and end records without decoding anything: a thousand trials take well under a second."""
        run = cls(files=_files(directory))
        for file in run.files:
            data = file.read_bytes()
            end = max((end for _, end in _records(data)), default=0)
            run.started |= data.find(metadata.SESSION_START_INFO_TAG.encode(), 0, end) >= 0
            run.ended |= data.find(metadata.SESSION_END_INFO_TAG.encode(), 0, end) >= 0
            run.whole = file if end == len(data) > 0 else None
        return run

    def events(self) -> Iterator[event_pb2.Event]:
        """Every whole event, in the order written; the rest of a damaged file is left out."""
        for file in self.files:
            for data, _ in _records(file.read_bytes()):
                yield event_pb2.Event.FromString(data)

    def experiment(self) -> api_pb2.Experiment | None:
        """The configuration that TensorBoard goes by: the first."""
        for event in self.events():
            for value in event.summary.value:
                if value.tag == metadata.EXPERIMENT_TAG:
                    return metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
        return None

    def curve(self, tag: str) -> dict[int, float]:
        """The scalars of `tag` by step as TensorBoard shows them: a restart drops what was written from its step on."""
        out: dict[int, float] = {}
        for event in self.events():
            if event.session_log.status == event_pb2.SessionLog.START:
                out = {step: number for step, number in out.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag and value.tensor.float_val:
                    out[event.step] = value.tensor.float_val[0]
        return out


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The records of a file with the offset behind each, up to the first that is torn or damaged in its header.

    The data's checksum is looked at for the last record only, where an interrupted write would show.
    """
    at = 0
    while len(data) - at > HEADER.size + FOOTER.size:
        length, crc = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length + FOOTER.size
        if length == 0 or end > len(data) or crc != masked_crc32c(data[at : at + 8]):
            return
        record = data[at + HEADER.size : end - FOOTER.size]
        if end == len(data) and FOOTER.unpack_from(data, end - FOOTER.size)[0] != masked_crc32c(record):
            return
        yield record, end
        at = end


def _files(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(Path(entry.path) for entry in os.scandir(directory) if entry.name.startswith(PREFIX))
    return []


def _new_file(directory: Path) -> Path:
    """A name that sorts behind every file there, also after the clock was set back: TensorBoard reads in that order."""
    files = _files(directory)
    seconds = int(time.time())
    for file in files:
        with contextlib.suppress(ValueError):
            seconds = max(seconds, int(file.name.removeprefix(PREFIX).split(".")[0]))
    return directory / f"{PREFIX}{seconds:010d}.{len(files):04d}.{socket.gethostname()}.{os.getpid()}"


def _set(value: object, cell: Cell) -> None:
    if isinstance(cell, bool):  # before the number that it also is
        value.bool_value = cell  # type: ignore[attr-defined]
    elif isinstance(cell, str):
        value.string_value = cell  # type: ignore[attr-defined]
    else:
        value.number_value = cell  # type: ignore[attr-defined]


def _finite(number: float) -> bool:
    try:
        packed = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return False
    return packed - packed == 0.0
