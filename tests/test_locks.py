"""Locks on a file system without flock: a lease, which says that its holder lives."""

import errno
import os
import platform
import threading
import time

import pytest

from odnlib import files
from odnlib.files import FolderLocked
from tests.conftest import wait_for


@pytest.fixture
def without_flock(monkeypatch):
    """As on a file system that has no flock; a lock that nobody touches is not waited for for more than a second."""

    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(files, "LOCK_LEASE_SECONDS", 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["4711\nnode017\n", "no record at all", "", "lease"])
def test_a_lock_left_by_a_dead_machine_names_itself_and_a_lease_is_taken_over(left, without_flock, tmp_path):
    folder, lock = tmp_path / "run", tmp_path / ".run.lock"
    if left == "lease":
        with files.lock_folder(folder, wait=False):
            left = lock.read_text().replace(f"host={platform.node()}", "host=node017")
    lock.write_text(left)
    os.utime(lock, (time.time() - 3600,) * 2)
    message = rf"or was: delete {lock}, 1\.0 hours old, if that is dead; nothing was done"
    with pytest.raises(FolderLocked, match=message):
        files.lock_folder(folder, wait=False).__enter__()
    if "lease" in left:
        with files.lock_folder(folder, wait=True):
            assert "host=node017" not in lock.read_text()
    else:
        with pytest.raises(FolderLocked, match=message):
            files.lock_folder(folder, wait=True).__enter__()


@pytest.mark.slow
def test_a_living_holder_is_waited_for_without_flock(without_flock, tmp_path, caplog):
    released = threading.Event()

    def hold():
        with files.lock_folder(tmp_path / "run", wait=False):
            released.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    wait_for((tmp_path / ".run.holder.lock").exists)
    threading.Timer(3.0, released.set).start()  # much longer than a lease
    with files.lock_folder(tmp_path / "run", wait=True):
        assert released.is_set()
    assert "is being worked on by process" in caplog.text
    holder.join()
