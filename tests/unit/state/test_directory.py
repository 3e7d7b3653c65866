"""The state is found by the cluster's name, and what an earlier version kept by address is taken over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from event_handler.errors import StateError
from event_handler.ports import Commit
from event_handler.state.directory import migrate_layout, state_directory
from event_handler.state.sqlite import SqliteStore
from tests.support.checkpoints import places, positions


@pytest.mark.parametrize(
    ("cluster", "name"), [("example.test", "example.test"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("käse", "k%C3%A4se")]
)
def test_a_cluster_name_becomes_one_directory_below_the_storage(tmp_path: Path, cluster: str, name: str) -> None:
    assert state_directory(tmp_path, cluster, "fluentd") == tmp_path / name / "fluentd"


def test_state_kept_by_address_is_taken_over_once(tmp_path: Path) -> None:
    old = SqliteStore(tmp_path / "auth.example.test_3025")
    asyncio.run(old.commit(Commit(places({"search": "5.0"}))))
    old.close()
    directory = state_directory(tmp_path, "example.test", "fluentd")
    for _ in range(2):
        migrate_layout(tmp_path, directory, [("proxy.example.test", 443), ("auth.example.test", 3025)])
    store = SqliteStore(directory)
    assert asyncio.run(positions(store, "search")) == {"search": "5.0"}
    store.close()
    assert sorted(path.name for path in (tmp_path / "auth.example.test_3025").iterdir()) == ["lock", "state.db.adopted"]


def test_a_state_that_is_there_already_is_never_replaced_by_an_older_one(tmp_path: Path) -> None:
    directory = state_directory(tmp_path, "example.test", "fluentd")
    for place, position in ((tmp_path / "auth.example.test_3025", "5.0"), (directory, "9.0")):
        store = SqliteStore(place)
        asyncio.run(store.commit(Commit(places({"search": position}))))
        store.close()
    migrate_layout(tmp_path, directory, [("auth.example.test", 3025)])
    store = SqliteStore(directory)
    assert asyncio.run(positions(store, "search")) == {"search": "9.0"}
    store.close()


def test_a_state_that_another_process_still_works_on_is_not_taken_over(tmp_path: Path) -> None:
    working = SqliteStore(tmp_path / "auth.example.test_3025")
    directory = state_directory(tmp_path, "example.test", "fluentd")
    with pytest.raises(StateError, match="another event handler"):
        migrate_layout(tmp_path, directory, [("auth.example.test", 3025)])
    assert not directory.exists()
    working.close()


def test_nothing_is_taken_over_from_another_address(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "other.test_443").close()
    directory = state_directory(tmp_path, "example.test", "fluentd")
    migrate_layout(tmp_path, directory, [("auth.example.test", 3025)])
    assert not directory.exists()


def test_the_state_of_another_cluster_is_refused_by_name(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.claim("one.test"))
    asyncio.run(store.claim("one.test"))
    with pytest.raises(StateError, match=r"belongs to the cluster one\.test, and the credentials are for two\.test"):
        asyncio.run(store.claim("two.test"))
    store.close()
