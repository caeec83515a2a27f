"""Records that wait on disk: their order, their limit, and what kills, restarts and broken disks leave of them."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgecnn.errors import InputError, Unavailable
from edgecnn.stream import spool as module
from edgecnn.stream.spool import HEAD, Record, Spool

ROOM = 16_000  # sixteen files of 1,000 bytes


def fill(spool: Spool, *numbers: int, size: int = 84) -> None:
    for number in numbers:
        assert spool.append(str(number).encode().ljust(size))


def taken(spool: Spool, count: int = 7) -> list[int]:
    """Everything that waits, taken in bites."""
    found: list[int] = []
    while records := spool.oldest(count, 0):
        found += [int(record.data) for record in records]
        spool.acknowledge(records[-1].number)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.records"))


@pytest.mark.parametrize("bite", [1, 7, 10, 1000])
def test_records_come_in_order_and_once(tmp_path: Path, bite: int) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(120))
    assert (spool.waiting, spool.size_bytes) == (120, 120 * (84 + HEAD.size))
    assert taken(spool, bite) == list(range(120))
    assert (spool.waiting, spool.given_up) == (0, 0)
    assert files(tmp_path / "s") == []
    fill(spool, 120)
    assert spool.oldest(9, 0) == [Record(121, b"120".ljust(84))]
    spool.close()


def test_what_is_not_acknowledged_comes_again_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(25))
    first = spool.oldest(4, 0)
    assert spool.oldest(4, 0) == first
    spool.acknowledge(first[1].number)
    spool.close()
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 25)
    assert taken(spool) == list(range(2, 26))
    spool.close()
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 26)
    assert spool.oldest(9, 0)[0].number == 27, "numbers go on where everything had been taken"
    spool.close()


def test_the_oldest_are_given_up_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    for number in range(1000):
        fill(spool, number)
        assert spool.size_bytes <= ROOM
        assert sum(path.stat().st_size for path in files(tmp_path / "s")) == spool.size_bytes
    found = taken(spool)
    assert found == list(range(1000 - len(found), 1000))
    assert spool.given_up == 1000 - len(found)
    assert len(found) * 100 >= ROOM * 14 // 16
    spool.close()


def test_a_record_that_fits_nowhere_is_given_up_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 0)
    assert not spool.append(bytes(ROOM))
    assert spool.append(b"1".ljust(ROOM - 1000))
    assert (taken(spool), spool.given_up) == ([0, 1], 1)
    spool.close()


def test_what_is_being_sent_may_be_given_up_meanwhile(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(10))
    sent = spool.oldest(10, 0)
    fill(spool, *range(10, 400))
    spool.acknowledge(sent[-1].number)
    found = taken(spool)
    assert found == list(range(found[0], 400))
    assert spool.given_up == found[0]
    spool.close()


@pytest.mark.parametrize("cut", [1, 3, HEAD.size, HEAD.size + 1, 99])
def test_a_torn_record_is_ignored(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(5))
    spool.close()
    [path] = files(tmp_path / "s")
    path.write_bytes(path.read_bytes()[:-cut])
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 9)
    assert taken(spool) == [0, 1, 2, 3, 9]
    spool.close()


@pytest.mark.parametrize("damage", [b"\0" * 100, b"\xff" * 100, b"x"], ids=["zeros", "ones", "one byte"])
@pytest.mark.parametrize("reopened", [False, True])
def test_what_comes_behind_an_altered_record_of_a_file_is_lost(
    tmp_path: Path, damage: bytes, reopened: bool
) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(25))
    if reopened:
        spool.close()
    path = files(tmp_path / "s")[0]
    data = path.read_bytes()
    path.write_bytes(data[:420] + damage + data[420 + len(damage) :])
    if reopened:
        spool = Spool(tmp_path / "s", ROOM)
    assert taken(spool) == [0, 1, 2, 3, *range(10, 25)]
    fill(spool, 25)
    assert taken(spool) == [25]
    spool.close()


def test_a_torn_note_of_what_was_taken_gives_all_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(5))
    spool.acknowledge(2)
    spool.close()
    (tmp_path / "s" / "taken").write_bytes(b"\x03\0\0")
    spool = Spool(tmp_path / "s", ROOM)
    assert taken(spool) == [0, 1, 2, 3, 4]
    spool.close()


def test_a_full_disk_costs_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 0)
    packed = module._packed
    monkeypatch.setattr(module, "_packed", lambda record: packed(record)[:50])  # a write that ends early
    assert not spool.append(b"1".ljust(84))
    assert not spool.append(b"2".ljust(84))
    monkeypatch.undo()
    fill(spool, 3)
    assert (taken(spool), spool.given_up) == ([0, 3], 2)
    spool.close()


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    (tmp_path / "s").rename(tmp_path / "t")
    assert not spool.append(b"0")
    (tmp_path / "t").rename(tmp_path / "s")
    fill(spool, 1)
    assert (taken(spool), spool.given_up) == ([1], 1)
    spool.close()


def test_a_disk_that_cannot_be_read_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(24, "Too many open files")

    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, 0)
    monkeypatch.setattr(Path, "open", refuse)
    assert taken(spool) == []
    monkeypatch.undo()
    assert (taken(spool), spool.given_up) == ([0], 0)
    spool.close()


def test_a_file_that_is_removed_by_hand(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    fill(spool, *range(15))
    files(tmp_path / "s")[0].unlink()
    assert (taken(spool), spool.given_up) == ([10, 11, 12, 13, 14], 10)
    spool.close()


def test_one_program_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    with pytest.raises(InputError, match="is in use by another program"):
        Spool(tmp_path / "s", ROOM)
    spool.close()
    Spool(tmp_path / "s", ROOM).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"spool .*file/s: cannot be opened \("):
        Spool(tmp_path / "file" / "s", ROOM)


def test_who_waits_is_woken(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", ROOM)
    found: list[list[Record]] = []
    thread = threading.Thread(target=lambda: found.extend(spool.oldest(5, 60) for _ in range(2)))
    thread.start()
    fill(spool, 0)
    while not found:
        time.sleep(0.01)
    spool.acknowledge(1)
    spool.close()
    thread.join()
    assert [len(records) for records in found] in ([1, 0], [1, 1])
    assert not spool.append(b"too late")


def test_two_threads(tmp_path: Path) -> None:
    """Nothing is lost, repeated or out of order while one thread appends and another takes."""
    spool = Spool(tmp_path / "s", 10 * ROOM)
    found: list[int] = []

    def take() -> None:
        while len(found) < 1000:
            for record in spool.oldest(7, 1):
                found.append(int(record.data))
                spool.acknowledge(record.number)

    thread = threading.Thread(target=take)
    thread.start()
    fill(spool, *range(1000))
    thread.join()
    assert found == list(range(1000))
    assert spool.wait_until_taken(0)
    spool.close()


KILLED = """
import sys
from pathlib import Path
from edgecnn.stream.spool import Spool
spool = Spool(Path(sys.argv[1]), 100_000_000)
first = int(sys.argv[2])
for number in range(first, first + 10**6):
    assert spool.append(str(number).encode().ljust(84))
    print(number, flush=True)
    if number % 3 == 0:
        for record in spool.oldest(2, 0):
            print(-int(record.data) - 1, flush=True)
            spool.acknowledge(record.number)
"""


def test_killed_again_and_again_nothing_is_lost(tmp_path: Path) -> None:
    """Each run appends and takes until it is killed; all that were reported are there, in order, at least once."""
    rng, first = random.Random(0), 0
    found: list[int] = []
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            said = [first, *(int(line) for line in process.stdout.read().split("\n")[:-1])]
        found += [-number - 1 for number in said if number < 0]
        spool = Spool(tmp_path / "s", 10**8)
        last = int(spool.oldest(10**9, 0)[-1].data) if spool.waiting else first
        spool.close()
        # one may have been appended and not been reported any more
        first = max(*said, last) + 1
    spool = Spool(tmp_path / "s", 10**8)
    found += taken(spool, 1000)
    spool.close()
    once = list(dict.fromkeys(found))
    assert once == list(range(first))
    assert len(found) - len(once) <= 4, "of each run, the one that was being taken"
