//! FNV-1a, 64 bits: to tell names, jobs and damaged headers apart; no guard against malice.
//!
//! See [the IETF draft](https://datatracker.ietf.org/doc/draft-eastlake-fnv/).

/// The hash of nothing.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The hash of `parts`, bytes or whole words.
pub(crate) fn fnv1a<T: Into<u64>>(parts: impl IntoIterator<Item = T>) -> u64 {
    parts.into_iter().fold(OFFSET_BASIS, step)
}

/// As [`fnv1a`] of words, with the bits turned after each so that the upper ones count, too.
pub(crate) fn fnv1a_turned(words: &[u64]) -> u64 {
    words.iter().fold(OFFSET_BASIS, |hash, word| step(hash, *word).rotate_left(29))
}

fn step(hash: u64, part: impl Into<u64>) -> u64 {
    (hash ^ part.into()).wrapping_mul(PRIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_are_met() {
        assert_eq!(fnv1a(*b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
    }
}
