"""Secure sums: the arithmetic in closed form, masks that cancel, and a state machine that answers each step once."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from federation.secure_sum.coordinator import SumFailed, unmasked
from federation.secure_sum.fixed_point import FRACTION_BITS, WEIGHT, OutOfRange, added, mean_of, to_ring
from federation.secure_sum.masks import add_mask, agreed, new_key, public_of
from federation.secure_sum.member import KEYS, SURVIVORS, Signer, SumMember
from federation.secure_sum.rules import Session, SumRefused, least, threshold
from federation.secure_sum.shares import PRIME, joined, split

SESSION = Session("study", "arm/task", 0, "s0")


class NotSigned(ValueError):
    pass


def signature(centre, purpose, content):
    """A signature that anybody could make; that ECDSA's cannot be made is `clients.member_keys`'s affair."""
    return hashlib.sha256(b"\0".join([centre.encode(), purpose.encode(), content])).digest()


def verify(centre, purpose, content, signed):
    if signed != signature(centre, purpose, content):
        raise NotSigned(centre)


class Members:
    """Members of a sum with their folders, each step of theirs, and what they gave."""

    def __init__(self, folder, names="ABCD", session=SESSION):
        self.folder, self.names, self.session = folder, list(names), session
        rng = np.random.default_rng(3)
        self.rings = {name: to_ring({"w": rng.normal(size=(3, 2)).astype(np.float32)}, 7, len(names)) for name in names}

    def of(self, name, session=None):
        """Made anew each time, as at a node that was restarted."""
        signer = Signer(name, lambda purpose, content: signature(name, purpose, content), verify)
        return SumMember(self.folder / name, signer, session or self.session, self.names)

    def keys(self, names=None):
        return {name: self.of(name).keys() for name in names or self.names}

    def shares(self, keys, names=None):
        return {name: self.of(name).shares(keys) for name in names or keys}

    def masked(self, shares, names=None):
        return {name: self.of(name).masked(self.rings[name], to(name, shares)) for name in names or shares}

    def survivors(self, survivors, names=None):
        return {name: self.of(name).survivors(survivors) for name in names or survivors}

    def opening(self, signatures, names=None):
        return {name: self.of(name).opening(signatures) for name in names or signatures}

    def plain(self, names):
        return added(self.rings[name] for name in names)

    def until_masked(self):
        keys = self.keys()
        shares = self.shares(keys)
        return keys, shares, self.masked(shares)


def to(name, shares):
    return {sender: own[name] for sender, own in shares.items() if sender != name}


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def members(tmp_path):
    return Members(tmp_path)


# -- numbers -------------------------------------------------------------------------------------------------


def test_numbers_in_the_ring_in_closed_form():
    ring = to_ring({"x": np.array([1.5, -1.0, 0.0], np.float32)}, 3, 4)
    assert ring["x"].tolist() == [int(4.5 * 2**28), 2**64 - 3 * 2**28, 0] and ring[WEIGHT].tolist() == [3]
    mean, weight = mean_of(added([ring, to_ring({"x": np.array([0.5, 3.0, -2.0], np.float32)}, 1, 4)]))
    assert weight == 4 and mean["x"].tolist() == [(4.5 + 0.5) / 4, 0.0, -0.5]


@given(
    arrays_of.arrays(np.float32, (3, 5), elements=st.floats(-1000, 1000, width=32)),
    st.lists(st.integers(1, 10**5), min_size=3, max_size=3),
)
def test_a_mean_is_off_by_half_a_step_at_most(values, weights):
    total = added(to_ring({"x": own}, weight, 3) for own, weight in zip(values, weights, strict=True))
    mean, weight = mean_of(total)
    exact = np.average(values.astype(np.float64), axis=0, weights=weights)
    assert weight == sum(weights) and np.abs(mean["x"] - exact).max() <= 2.0 ** -(FRACTION_BITS + 1) + 1e-12


@pytest.mark.parametrize("members", [1, 3, 4, 1000])
def test_a_number_that_could_wrap_is_refused_and_named_and_the_largest_one_does_not_wrap(members):
    limit = (2**63 - 1) // members / 2.0**FRACTION_BITS
    fits = np.float32(limit * (1 - 2.0**-20))
    for sign in (1, -1):
        ring = to_ring({"x": np.array([sign * fits])}, 1, members)
        total = added([ring] * members)
        assert mean_of(total)[0]["x"][0] == pytest.approx(sign * float(fits), rel=1e-12)
    for bad in (limit * 1.001, -limit * 1.001, np.inf, np.nan):
        with pytest.raises(OutOfRange, match=r"array 'layer.w' holds .* lower the learning rate") as refused:
            to_ring({"layer.w": np.array([0.0, bad])}, 1, members)
        assert refused.value.numbers["name"] == "layer.w"
    with pytest.raises(OutOfRange):
        to_ring({"x": np.array([fits])}, 2, members)
    with pytest.raises(OutOfRange, match="'weight'"):
        to_ring({}, 0, members)


def test_a_sum_without_weight_is_none():
    with pytest.raises(ValueError, match="has the weight 0"):
        mean_of({"x": np.zeros(1, np.uint64), WEIGHT: np.zeros(1, np.uint64)})


# -- shares --------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.integers(1, 7), st.data())
def test_enough_shares_give_the_secret_back_and_fewer_do_not(secret, needed, data):
    shares = split(secret, range(1, 8), needed)
    chosen = data.draw(st.lists(st.sampled_from(range(1, 8)), min_size=needed, unique=True))
    assert joined({point: shares[point] for point in chosen}, 32) == secret
    if needed > 1:
        fewer = {point: shares[point] for point in chosen[: needed - 1]}
        with pytest.raises(ValueError, match="too few"):
            joined(fewer, 32)


def test_one_share_fewer_fits_every_secret():
    """Of two needed shares one is known: some line through it meets every secret."""
    secret, other = (7).to_bytes(32, "big"), (8).to_bytes(32, "big")
    share = int.from_bytes(split(secret, [1, 2], 2)[1], "big")
    slope = (share - int.from_bytes(other, "big")) % PRIME
    second = ((2 * slope + 8) % PRIME).to_bytes(66, "big")
    assert joined({1: share.to_bytes(66, "big"), 2: second}, 32) == other


def test_the_modulus_is_prime():
    """Lucas and Lehmer's test of Mersenne numbers."""
    value = 4
    for _ in range(519):
        value = (value * value - 2) % PRIME
    assert value == 0 and PRIME == 2**521 - 1


def test_thresholds():
    assert [threshold(n) for n in range(3, 11)] == [3, 3, 4, 5, 5, 6, 7, 7]
    assert [least(n) for n in range(0, 6)] == [3, 3, 3, 3, 3, 4]
    assert all(2 * threshold(n) - n > n / 3 for n in range(3, 200)), "two lists need more than a third to sign both"


# -- masks ---------------------------------------------------------------------------------------------------


def test_the_key_stream_is_that_of_rfc_8439():
    """Section 2.4.2 has the key 0..31; appendix A.1, first vector: key, nonce and counter 0."""
    ring = {"x": np.zeros(2, np.uint64)}
    add_mask(ring, bytes(32), 1)
    assert ring["x"].astype("<u8").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_two_members_agree_for_one_purpose():
    (a, a_public), (b, b_public) = new_key(), new_key()
    assert public_of(a) == a_public and agreed(a, b_public, b"x") == agreed(b, a_public, b"x") != agreed(
        a, b_public, b"y"
    )
    with pytest.raises(ValueError):
        agreed(a, bytes(32), b"x")  # a point of small order


@pytest.mark.parametrize("count", [3, 4, 7])
def test_masks_cancel_exactly(tmp_path, count):
    members = Members(tmp_path, "ABCDEFG"[:count])
    keys, shares, inputs = members.until_masked()
    survivors = members.names
    openings = members.opening(members.survivors(survivors))
    assert equal(unmasked(SESSION, keys, list(shares), inputs, openings), members.plain(survivors))
    for name in survivors:
        for array, ring in ((inputs[name][k], members.rings[name][k]) for k in ("w", WEIGHT)):
            assert not np.any(array == ring), "nothing of an input is as it was"


def test_pairwise_masks_alone_cancel_and_self_masks_stay(members):
    """What the coordinator has before the opening is no sum."""
    keys, shares, inputs = members.until_masked()
    assert not equal(added(inputs.values()), members.plain("ABCD"))


# -- dropouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["keys", "shares", "masked", "survivors", "opening"])
@pytest.mark.parametrize("lost", ["A", "D"])
def test_one_of_four_is_lost_at_each_step_and_the_sum_is_that_of_the_others(members, step, lost):
    left = {
        name: [n for n in members.names if n != lost] for name in ("keys", "shares", "masked", "survivors", "opening")
    }
    steps = list(left)
    there = {name: left[name] if steps.index(name) >= steps.index(step) else members.names for name in steps}
    keys = members.keys(there["keys"])
    shares = members.shares(keys, there["shares"])
    inputs = members.masked(shares, there["masked"])
    survivors = sorted(inputs)
    signatures = members.survivors(survivors, there["survivors"])
    openings = members.opening(signatures, there["opening"])
    total = unmasked(SESSION, keys, list(shares), inputs, openings)
    assert equal(total, members.plain(survivors)) and (lost in survivors) == (step in ("survivors", "opening"))


def test_with_two_of_four_lost_nothing_is_opened(members):
    keys, shares, _ = members.until_masked()
    with pytest.raises(SumRefused, match="2 survivors, and a session of 4 opens for 3 or more"):
        members.survivors(["A", "B"])
    signatures = members.survivors(["A", "B", "C"], ["A", "B"])
    with pytest.raises(SumRefused, match="2 signatures under the list of survivors, and 3"):
        members.opening(signatures)


def test_two_openings_of_four_are_not_enough(members):
    keys, shares, inputs = members.until_masked()
    openings = members.opening(members.survivors(members.names), ["A", "B"])
    with pytest.raises(SumFailed, match="2 members opened the sum and 3 are needed"):
        unmasked(SESSION, keys, list(shares), inputs, openings)


@examples(max_examples=25)
@given(st.integers(3, 8), st.data())
def test_whoever_is_lost_whenever_the_sum_is_exact_or_nothing_is_opened(tmp_path_factory, count, data):
    members = Members(tmp_path_factory.mktemp("sum"), "ABCDEFGH"[:count])
    losing = st.lists(st.sampled_from(members.names), max_size=2, unique=True)

    def left(names):
        gone = data.draw(losing)
        return [name for name in names if name not in gone]

    keys = members.keys(left(members.names))
    try:
        shares = members.shares(keys, left(keys))
        inputs = members.masked(shares, left(shares))
        survivors = sorted(inputs)
        openings = members.opening(members.survivors(survivors, left(survivors)))
        total = unmasked(SESSION, keys, list(shares), inputs, {n: openings[n] for n in left(openings)})
    except (SumRefused, SumFailed):
        return
    assert len(survivors) >= 3 and equal(total, members.plain(survivors))


# -- replays -------------------------------------------------------------------------------------------------


def test_every_step_asked_twice_is_answered_with_the_same(members):
    keys = members.keys()
    assert members.keys() == keys
    shares = members.shares(keys)
    assert members.shares(keys) == shares, "encrypted once"
    inputs, again = members.masked(shares), members.masked(shares)
    assert all(equal(inputs[name], again[name]) for name in inputs)
    signatures = members.survivors(members.names)
    assert members.survivors(members.names[::-1]) == signatures
    openings = members.opening(signatures)
    assert members.opening(signatures) == openings


def test_another_input_under_the_same_masks_is_refused(members):
    """The difference of two would be the difference of the inputs."""
    _, shares, _ = members.until_masked()
    members.rings["A"] = to_ring({"w": np.zeros((3, 2), np.float32)}, 7, 4)
    with pytest.raises(SumRefused, match="another input in this session"):
        members.masked(shares, ["A"])


def test_another_group_for_the_same_input_is_refused(members):
    """With other pairwise masks under the same self mask, their difference would show masks."""
    _, shares, _ = members.until_masked()
    with pytest.raises(SumRefused, match="another input in this session"):
        members.of("A").masked(members.rings["A"], to("A", {n: shares[n] for n in "ABC"}))


def test_no_input_is_given_once_the_sum_is_open(members):
    _, shares, _ = members.until_masked()
    members.opening(members.survivors(members.names))
    with pytest.raises(SumRefused, match="closed"):
        members.masked(shares, ["A"])


def test_secrets_are_forgotten_with_the_opening_and_private_before(members):
    members.until_masked()
    members.opening(members.survivors(members.names, ["A", "B", "C"]))
    (opened,) = (members.folder / "A").glob("*/0-*.json")
    (closed,) = (members.folder / "D").glob("*/0-*.json")
    assert "secrets" not in opened.read_text() and "secrets" in closed.read_text()
    assert opened.parent.stat().st_mode & 0o077 == 0


def test_steps_out_of_order_are_refused(members):
    a = members.of("A")
    for step in (
        lambda: a.shares({}),
        lambda: a.masked(members.rings["A"], {}),
        lambda: a.survivors(["A"]),
        lambda: a.opening({}),
    ):
        with pytest.raises(SumRefused, match="no keys of this session"):
            step()
    keys = members.keys()
    with pytest.raises(SumRefused, match="has not shared"):
        a.masked(members.rings["A"], {})
    shares = members.shares(keys)
    with pytest.raises(SumRefused, match="given no input"):
        a.survivors(members.names)
    members.masked(shares)
    with pytest.raises(SumRefused, match="signed no list"):
        a.opening({})


def test_old_sessions_are_forgotten_and_cannot_be_opened(members):
    keys, shares, _ = members.until_masked()
    for number in range(20):
        members.of("A", replace(SESSION, round=1 + number, number=str(number))).keys()
    with pytest.raises(SumRefused, match="no longer has them"):
        members.survivors(members.names, ["A"])
    assert len(list((members.folder / "A").glob("*/[0-9]*.json"))) == 8


# -- a coordinator that lies ---------------------------------------------------------------------------------


def test_keys_that_are_not_their_members_are_refused(members):
    """The coordinator puts keys of its own in the place of a member's, to read its shares and take off its masks."""
    keys = members.keys()
    (_, encryption), (_, masking) = new_key(), new_key()
    own = {"encryption": encryption.hex(), "masking": masking.hex()}
    for forged in (
        own | {"signature": keys["B"]["signature"]},
        keys["B"] | {"masking": own["masking"]},
        keys["B"] | {"signature": signature("C", KEYS, b"").hex()},
    ):
        with pytest.raises(NotSigned, match="B"):
            members.of("A").shares(keys | {"B": forged})
    with pytest.raises(SumRefused, match="under this member's name are not its own"):
        members.of("A").shares(keys | {"A": own | {"signature": ""}})
    members.shares(keys)  # the honest list is still taken


@pytest.mark.parametrize("change", ["study", "of", "round", "number"])
def test_keys_of_another_session_are_refused(members, change):
    other = replace(SESSION, **{change: 5 if change == "round" else "other"})
    keys = members.keys()
    with pytest.raises(NotSigned, match="B"):
        members.of("A").shares(keys | {"B": members.of("B", other).keys()})


def test_lists_with_too_few_foreign_or_doubled_members_are_refused(members, tmp_path):
    keys = members.keys()
    with pytest.raises(SumRefused, match="2 members, and a sum of fewer than 3"):
        members.of("A").shares({name: keys[name] for name in "AB"})
    foreign = Members(tmp_path / "other", "ABCDX").of("X").keys()
    with pytest.raises(SumRefused, match="X is not a member"):
        members.of("A").shares(keys | {"X": foreign})
    with pytest.raises(SumRefused, match="a key occurs twice"):
        members.of("A").shares(keys | {"B": keys["C"]})
    outsider = Signer("X", lambda purpose, content: b"", verify)
    with pytest.raises(SumRefused, match="X is not a member"):
        SumMember(tmp_path, outsider, SESSION, "ABCD").keys()


def test_a_second_list_of_keys_is_refused(members):
    keys = members.keys()
    members.shares({name: keys[name] for name in "ABC"}, ["A"])
    with pytest.raises(SumRefused, match="has seen another list of keys"):
        members.shares(keys, ["A"])


def test_different_lists_for_different_members_open_nothing(members):
    """A and B are told of three members, C and D of four: their shares do not fit, so no mask is made from them."""
    keys = members.keys()
    few = {name: keys[name] for name in "ABC"}
    shares = members.shares(few, ["A", "B"]) | members.shares(keys, ["C", "D"])
    with pytest.raises(SumRefused, match="too few or no members of this session"):
        members.of("A").masked(members.rings["A"], {"B": shares["B"]["A"], "D": shares["D"]["A"]})
    with pytest.raises(KeyError):
        to("D", shares)  # A made no share for a member that it does not know


def test_a_share_that_was_changed_or_is_of_somebody_else_is_refused(members):
    keys = members.keys()
    shares = members.shares(keys)
    mine = to("A", shares)
    flipped = mine["B"][:-1] + ("0" if mine["B"][-1] != "0" else "1")
    for text in (flipped, shares["B"]["C"], mine["C"], "", "zz"):
        with pytest.raises(SumRefused):
            members.of("A").masked(members.rings["A"], mine | {"B": text})
    members.of("A").masked(members.rings["A"], mine)


def test_a_round_is_summed_once_whatever_the_session(members):
    """Two sums of one round, one without D, would subtract to what D gave."""
    members.until_masked()
    members.opening(members.survivors(members.names))
    again = Members(members.folder, session=replace(SESSION, number="s1"))
    keys = again.keys()
    shares = again.shares(keys)
    inputs = again.masked(shares)
    for names in (["A", "B", "C"], ["B", "C", "D"]):
        with pytest.raises(SumRefused, match="another list of survivors for this round"):
            again.survivors(names)
    openings = again.opening(again.survivors(members.names))
    assert equal(unmasked(again.session, keys, list(shares), inputs, openings), members.plain("ABCD")), (
        "the same sum again"
    )


def test_without_that_rule_two_sums_give_one_member(members, monkeypatch):
    monkeypatch.setattr(SumMember, "_fixed", lambda self: {})
    keys, shares, inputs = members.until_masked()
    total = unmasked(SESSION, keys, list(shares), inputs, members.opening(members.survivors(members.names)))
    again = Members(members.folder, session=replace(SESSION, number="s1"))
    keys = again.keys()
    shares = again.shares(keys)
    inputs = again.masked(shares, ["A", "B", "C"])
    less = unmasked(again.session, keys, list(shares), inputs, again.opening(again.survivors(["A", "B", "C"])))
    assert equal({name: total[name] - less[name] for name in total}, members.rings["D"])


def test_different_lists_of_survivors_for_different_members_open_nothing(members):
    members.until_masked()
    signatures = members.survivors(["A", "B", "C", "D"], ["C", "D"]) | members.survivors(["A", "B", "C"], ["A", "B"])
    for name in "ABCD":
        with pytest.raises((SumRefused, NotSigned)):
            members.of(name).opening({k: v for k, v in signatures.items() if k in "ABC"})


def test_signatures_that_are_forged_repeated_or_of_another_list_are_refused(members):
    members.until_masked()
    survivors = ["A", "B", "C"]
    signatures = members.survivors(survivors)
    content = SESSION.context(["A", "B", "C", "D"])
    for forged in (
        signatures["C"],
        signature("B", SURVIVORS, content).hex(),
        signature("B", KEYS, SESSION.context(survivors)).hex(),
    ):
        with pytest.raises(NotSigned, match="B"):
            members.of("A").opening(signatures | {"B": forged})
    with pytest.raises(SumRefused, match="not its own"):
        members.of("A").opening(signatures | {"A": "00"})
    with pytest.raises(SumRefused, match="4 signatures"):
        members.of("A").opening(signatures | {"D": signature("D", SURVIVORS, SESSION.context(survivors)).hex()})


def test_lists_of_survivors_that_nobody_masked_among_are_refused(members):
    members.until_masked()
    for bad in (["A", "B", "C", "X"], ["A", "A", "B", "C"], ["B", "C", "D"]):
        with pytest.raises(SumRefused, match="survivors are not those"):
            members.of("A").survivors(bad)


def test_of_no_member_both_secrets_are_opened(members):
    members.until_masked()
    openings = members.opening(members.survivors(["A", "B", "C"]))
    for one, other in itertools.product(openings.values(), repeat=2):
        assert set(one["self"]) == {"A", "B", "C"} and set(other["masking"]) == {"D"}


def test_who_left_but_answered_late_is_still_hidden(members):
    """D's input came after the list was made: its masking key is opened, and its self mask still covers it."""
    keys, shares, inputs = members.until_masked()
    openings = members.opening(members.survivors(["A", "B", "C"]))
    rest = {name: inputs[name] for name in "ABC"}
    assert equal(unmasked(SESSION, keys, list(shares), rest, openings), members.plain("ABC"))
    with pytest.raises(SumFailed, match="shares of D do not fit"):
        unmasked(SESSION, keys, list(shares), inputs, openings)


def test_a_wrong_share_is_noticed(members):
    keys, shares, inputs = members.until_masked()
    openings = members.opening(members.survivors(["A", "B", "C"]))
    for which, name in (("self", "A"), ("masking", "D")):
        spoilt = openings["B"][which] | {name: openings["C"][which][name]}
        with pytest.raises(SumFailed, match=f"shares of {name} do not"):
            unmasked(
                SESSION,
                keys,
                list(shares),
                {n: inputs[n] for n in "ABC"},
                openings | {"B": openings["B"] | {which: spoilt}},
            )
