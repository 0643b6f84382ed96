"""What fits where: nodes, GPUs, memory, labels and custom resources, on devices that nobody has."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ClusterError
from jobs.study import ExecutionRule
from orchestrator.machine import ANYWHERE, Machine, Needs, Node, check_offer, needs_of, part_of

GIB = 1 << 30
HALF = Needs(gpu_share=0.5)


def machine(*nodes: Node) -> Machine:
    cpus = sum(node.cpus for node in nodes)
    return Machine(cpus, cpus, "cpu", nodes=nodes)


def test_a_pack_lies_on_one_node() -> None:
    two = machine(Node(3), Node(3))
    assert two.most_cpus() == 3
    assert two.side_by_side(2) == 2, "six CPUs are not three times two"
    assert two.fits({(2, ANYWHERE): 2, (1, ANYWHERE): 2})
    assert not two.fits({(2, ANYWHERE): 3})
    assert Machine(6, 6, "cpu").side_by_side(2) == 3


def test_a_pack_on_several_nodes_takes_its_part_of_each() -> None:
    three, across = machine(Node(2), Node(2), Node(1)), Needs(nodes=2)
    assert (three.most_cpus(2), three.most_cpus(3)) == (4, 3), "as many on each as the smallest of them has"
    assert three.side_by_side(2, across) == 2, "one on the two large ones, one on a large one and the small one"
    assert three.fits({(2, across): 2})
    assert not three.fits({(2, across): 3})
    assert three.fits({(4, across): 1, (1, ANYWHERE): 1})
    assert not three.fits({(4, across): 1, (2, ANYWHERE): 1})
    assert not machine(Node(4)).fits({(2, across): 1}), "there is no second node"
    assert Machine(4, 4, "cpu").side_by_side(2, across) == 2, "a machine of which nothing is known is one place"
    gpus = machine(Node(8, gpus=2.0, gpu_bytes=80 * GIB), Node(8, gpus=2.0, gpu_bytes=80 * GIB))
    shape = 4, Needs(gpu_share=4.0, nodes=2)
    assert part_of(shape) == (2, Needs(gpu_share=2.0))
    assert gpus.side_by_side(*shape) == 1
    assert gpus.most_bytes(shape[1]) == pytest.approx(0.85 * 320 * GIB)


def test_memory_limits_what_lies_side_by_side() -> None:
    node = Node(8, memory_bytes=10 * GIB)
    assert machine(node).side_by_side(1, Needs(memory_bytes=4 * GIB)) == 2
    assert node.holds((1, Needs(memory_bytes=9 * GIB))) == 0, "not all of a memory can be used"
    assert not machine(node).fits({(1, Needs(memory_bytes=4 * GIB)): 1, (1, Needs(memory_bytes=5 * GIB)): 1})
    assert Node(8).most_bytes(ANYWHERE) == math.inf, "what is not known is no limit"


def test_gpus_are_shared_in_parts_and_memory_is_that_of_the_part() -> None:
    node = Node(16, gpus=2.0, gpu_bytes=80 * GIB)
    assert node.holds((1, HALF)) == 4
    assert node.holds((1, Needs(gpu_share=1 / 3))) == 6
    assert node.most_bytes(HALF) == pytest.approx(34 * GIB)
    assert node.holds((1, Needs(35 * GIB, 0.5))) == 0
    assert Node(16).holds((1, HALF)) == 0
    assert Node(3, gpus=2.0).holds((1, HALF)) == 3, "a pack on a GPU takes a CPU, too"


def test_labels_and_custom_resources_choose_the_node() -> None:
    plain, licensed = Node(4), Node(4, resources=(("licence", 2.0),), labels=(("zone", "a"),))
    execution = ExecutionRule(labels={"zone": "a"}, resources={"licence": 1.0})
    offered = machine(plain, licensed).offered_to(execution)
    assert offered.nodes == (licensed,)
    assert (offered.cpus, offered.packs_at_once) == (4, 4)
    assert offered.side_by_side(1, needs_of(execution)) == 2, "two licences, two packs"
    assert machine(plain).offered_to(ExecutionRule(packs_at_once=2)).packs_at_once == 2


@pytest.mark.parametrize(
    ("execution", "told"),
    [
        (ExecutionRule(device="cuda"), "device cuda"),
        (ExecutionRule(labels={"zone": "b"}), "label zone=b"),
        (ExecutionRule(resources={"licence": 3.0}), "3 of licence"),
    ],
)
def test_what_no_node_has_is_said(execution: ExecutionRule, told: str) -> None:
    offered = machine(Node(4, resources=(("licence", 2.0),))).offered_to(execution)
    assert offered.cpus == 0
    with pytest.raises(ClusterError, match=told):
        check_offer(offered, execution)


@given(
    st.lists(st.builds(Node, st.integers(1, 8), st.integers(1, 16), st.sampled_from([0.0, 1.0, 2.0])), max_size=4),
    st.lists(st.tuples(st.integers(1, 4), st.builds(Needs, st.integers(0, 8), st.sampled_from([0.0, 0.5, 1.0])))),
)
def test_what_fits_is_within_every_total_and_fits_without_any_one_of_its_packs(
    nodes: list[Node], shapes: list[tuple[int, Needs]]
) -> None:
    if not nodes:
        return
    whole = machine(*nodes)
    if whole.fits(Counter(shapes)):
        assert sum(threads for threads, _ in shapes) <= whole.cpus
        assert sum(needs.gpu_share for _, needs in shapes) <= sum(node.gpus for node in nodes)
        memory = sum(needs.memory_bytes for _, needs in shapes if not needs.gpu_share)
        assert memory <= sum(node.memory_bytes for node in nodes)
    for shape in set(shapes):
        count = whole.side_by_side(*shape)
        holds = sum(node.holds(shape) for node in nodes)
        assert whole.fits({shape: count}) == (holds > 0)
        assert not whole.fits({shape: holds + 1})
