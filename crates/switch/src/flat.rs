//! A flat hash table from addresses to numbers: built once, then only read.

/// A key of a [`FlatMap`].
pub(crate) trait Key: Copy + Eq + Default {
    fn mix(self) -> u64;
}

impl Key for u32 {
    fn mix(self) -> u64 {
        u64::from(self).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Key for u128 {
    fn mix(self) -> u64 {
        let low = (self as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (low ^ ((self >> 64) as u64)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

const EMPTY: u32 = u32::MAX;

/// Open addressing, linear probing, at most half full.
#[derive(Debug)]
pub(crate) struct FlatMap<K> {
    slots: Box<[(K, u32)]>,
    shift: u32,
}

impl<K: Key> FlatMap<K> {
    /// The map of these entries; of several with one key the first counts. Values must be below
    /// `u32::MAX`.
    pub(crate) fn build(entries: &[(K, u32)]) -> Self {
        let size = (entries.len() * 2).next_power_of_two().max(8);
        let mut map = Self {
            slots: vec![(K::default(), EMPTY); size].into_boxed_slice(),
            shift: 64 - size.trailing_zeros(),
        };
        for (key, value) in entries {
            debug_assert_ne!(*value, EMPTY);
            let at = map.find(*key);
            if map.slots[at].1 == EMPTY {
                map.slots[at] = (*key, *value);
            }
        }
        map
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<u32> {
        match self.slots[self.find(key)].1 {
            EMPTY => None,
            value => Some(value),
        }
    }

    /// The slot that holds `key`, or the empty one where it would go.
    #[inline]
    fn find(&self, key: K) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (key.mix() >> self.shift) as usize & mask;
        loop {
            let (found, value) = self.slots[at];
            if value == EMPTY || found == key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_standard_map(keys in prop::collection::vec(0u32..5000, 0..3000), asked in prop::collection::vec(0u32..6000, 100)) {
            let entries: Vec<_> = keys.iter().zip(0..).map(|(k, v)| (*k, v)).collect();
            let mut model = HashMap::new();
            for (key, value) in &entries {
                model.entry(*key).or_insert(*value);
            }
            let flat = FlatMap::build(&entries);
            let wide: Vec<_> = entries.iter().map(|(k, v)| (u128::from(*k) << 60, *v)).collect();
            let wide = FlatMap::build(&wide);
            for key in asked {
                prop_assert_eq!(flat.get(key), model.get(&key).copied());
                prop_assert_eq!(wide.get(u128::from(key) << 60), model.get(&key).copied());
            }
        }
    }
}
