"""Which kind of file system a directory lies on. SQLite and `flock` cannot be trusted on one that several machines share."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from ..errors import StoreError
from ..text import printable

NETWORK = {  # f_type of statfs(2), as in linux/magic.h and the file systems' own sources
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "CIFS",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0xAAD7AAEA: "PanFS",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
}
FUSE = 0x65735546
REMOTE_FUSE = ("sshfs", "rclone", "s3fs", "gcsfuse", "glusterfs", "davfs", "juicefs", "mfs", "blobfuse")
"""File systems in user space whose files lie on another machine, as /proc/self/mountinfo names them after "fuse."."""


def refuse_network(path: Path) -> None:
    """Refuse a place on a network file system, of which the nearest existing parent of `path` tells.  Raises: StoreError."""
    name = network(path)
    if name:
        raise StoreError(
            f"{printable(path)} lies on a network file system ({name}), where locks and commits cannot be trusted: give a --root "
            "on a local disk, or --allow-network-fs if only this machine ever uses it"
        )


def network(path: Path) -> str | None:
    """The name of the network file system that `path` lies on, or None for any other, or where it cannot be told."""
    path = Path(path).resolve()
    while not path.exists():
        path = path.parent
    kind = _kind(path)
    if kind == FUSE:
        mounted = _mounted(path).removeprefix("fuse.")
        return mounted if mounted.startswith(REMOTE_FUSE) else None
    return None if kind is None else NETWORK.get(kind)


def _kind(path: Path) -> int | None:
    """f_type of statfs(2), on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    room = ctypes.create_string_buffer(512)  # struct statfs is 120 bytes on 64-bit machines and begins with f_type
    try:
        if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), room) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF


def _mounted(path: Path) -> str:
    """The type of the file system as the mount table names it: of the longest mount point above `path`."""
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                point = before.split()[4].encode().decode("unicode_escape")  # a space is written \040
                if path.is_relative_to(point) and len(point) >= len(best):
                    best, kind = point, after.split()[0]
    except (OSError, ValueError, IndexError):
        return ""
    return kind
