"""Walks through entries inside entries: paths and leaves agree, containers keep their types, and nothing changes in place."""

from __future__ import annotations

import copy
from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import networks as nets
import numpy as np
import pytest
import torch

from adaug._batches.tree import is_container, is_record, leaves, map_leaves, replace, walk

Pair = namedtuple("Pair", "left right")


class Named(dict):
    note = ""


@dataclass(frozen=True)
class Record:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


def make():
    named = Named(a=torch.ones(2), b=[torch.zeros(2), "text"])
    named.note = "mine"
    return {"named": named, "pair": Pair(np.ones(1), (1, 2)), "user": UserDict(c=torch.ones(1)), "still": ["x", None]}


def test_each_leaf_is_found_at_its_path():
    tree = make()
    found = dict(leaves(tree))
    assert list(found)[:3] == [("named", "a"), ("named", "b", 0), ("named", "b", 1)]
    assert all(walk(tree, path) is leaf for path, leaf in found.items())
    assert {path for path, _ in leaves(tree, opens=lambda path, _: len(path) < 1)} == {(name,) for name in tree}
    for missing in (("named", "z"), ("pair", "left"), ("pair", 2), ("named", "a", 0)):
        with pytest.raises(LookupError):
            walk(tree, missing)


def test_containers_keep_their_types_and_nothing_changes_in_place():
    tree = make()
    before = copy.deepcopy(tree)
    changed = map_leaves(lambda path, leaf: leaf + 1 if isinstance(leaf, (torch.Tensor, np.ndarray)) else leaf, tree)
    assert nets.same(tree, before)
    assert tree["user"]["c"] == before["user"]["c"]
    assert [type(changed[name]) for name in tree] == [Named, Pair, UserDict, list]
    assert changed["named"].note == "mine"
    assert changed["named"]["a"].tolist() == [2, 2]
    assert changed["user"]["c"].tolist() == [2]
    assert changed["still"] is tree["still"]  # nothing in it has changed
    assert isinstance(map_leaves(lambda path, leaf: 2, MappingProxyType({"a": 1})), MappingProxyType)


def test_several_trees_are_walked_together():
    added = map_leaves(lambda path, a, b: a + b, {"a": (1, [2])}, {"a": (10, [20]), "more": 3})
    assert added == {"a": (11, [22])}


def test_values_are_replaced_by_their_paths():
    tree, new = make(), torch.full((2,), 5.0)
    changed = replace(tree, {("named", "b", 0): new, ("pair",): 3})
    assert changed["named"]["b"][0] is new
    assert changed["pair"] == 3
    assert changed["named"]["a"] is tree["named"]["a"]
    copied = replace(tree, {("named", "b", 0): new}, copies=True)
    assert copied["named"]["b"][0] is new
    assert copied["named"]["a"] is not tree["named"]["a"]
    assert copied["pair"].left is not tree["pair"].left


def test_dataclasses_are_opened_on_request():
    record = Record(torch.ones(2))
    assert [leaf is record for _, leaf in leaves(record)] == [True]
    doubled = map_leaves(
        lambda path, leaf: leaf if leaf is None else 2 * leaf,
        [record],
        opens=lambda path, tree: is_container(path, tree) or is_record(tree),
    )
    assert isinstance(doubled[0], Record)
    assert doubled[0].logits.tolist() == [2, 2]
