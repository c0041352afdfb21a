"""Sums over centres of which the coordinator sees the sum only.

K. Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), the variant against a
server that does not keep to the protocol: members sign their keys, and one list of survivors. One session is one sum:

    keys        each member makes two X25519 keys and signs them                                    `member.SumMember.keys`
    shares      it splits its masking key and its self mask among the others, encrypted for each    `.shares`
    input       its numbers + self mask + a mask with each other member, which cancel in the sum    `.masked`
    survivors   it signs the list of those whose input is in the sum                                `.survivors`
    opening     shares of the survivors' self masks, and of the masking keys of those that left     `.opening`

The coordinator's half, `coordinator`, takes the masks off the sum. Every session has keys of its own: what is opened for a
member that left tells nothing of the sums before. Primitives are those of `cryptography`; Shamir's polynomials are ours.
"""
