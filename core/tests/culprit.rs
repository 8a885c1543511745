//! The culprit, by properties: who is named, whatever the others are and in whatever order.

#![cfg(not(loom))]

use hangwatch_core::watchdog::culprit::{Culprit, Place, Wait, find_culprit};
use proptest::prelude::*;

const WAITS: Place = Place::Inside(Wait::Long);
const PASSES: Place = Place::Inside(Wait::Short);

fn places() -> impl Strategy<Value = Vec<Place>> {
    // Few outside: else nobody is ever odd.
    let place = prop_oneof![8 => Just(WAITS), 1 => Just(PASSES), 1 => Just(Place::Outside)];
    prop::collection::vec(place, 0..12)
}

fn find(places: &[Place]) -> Culprit<usize> {
    find_culprit(places.iter().copied().enumerate())
}

proptest! {
    #[test]
    fn exactly_the_one_is_named_whom_all_of_two_or_more_others_wait_for(places in places()) {
        let outside: Vec<usize> =
            (0..places.len()).filter(|&index| places[index] == Place::Outside).collect();
        let waiting = places.iter().filter(|&&place| place == WAITS).count();
        let is_odd = outside.len() == 1 && waiting >= 2 && waiting + 1 == places.len();
        match find(&places) {
            Culprit::One(named) => prop_assert!(is_odd && outside == [named]),
            Culprit::NotYet(named) => {
                prop_assert!(outside == [named] && places.contains(&PASSES) && places.len() > 2);
            }
            Culprit::Several => prop_assert!(outside.len() > 1),
            Culprit::Nobody => prop_assert!(outside.is_empty()),
            Culprit::Alone => prop_assert!(places.len() - outside.len() < 2),
        }
        prop_assert_eq!(is_odd, matches!(find(&places), Culprit::One(_)));
    }

    #[test]
    fn the_order_says_nothing(places in places(), turn in 0_usize..12) {
        let named = |odd: Culprit<usize>| match odd {
            Culprit::One(index) => Some(index),
            _ => None,
        };
        let length = places.len().max(1);
        let mut turned = places.clone();
        turned.rotate_left(turn % length);
        let back = named(find(&turned)).map(|index| (index + turn) % length);
        prop_assert_eq!(named(find(&places)), back);
    }

    #[test]
    fn one_more_who_waits_changes_nothing_and_one_more_outside_names_nobody(places in places()) {
        if let Culprit::One(named) = find(&places) {
            prop_assert_eq!(find(&[&places[..], &[WAITS]].concat()), Culprit::One(named));
            prop_assert_eq!(find(&[&places[..], &[PASSES]].concat()), Culprit::NotYet(named));
            prop_assert_eq!(find(&[&places[..], &[Place::Outside]].concat()), Culprit::Several);
        }
    }
}

#[test]
fn of_two_nobody_is_odd() {
    assert_eq!(find(&[WAITS, Place::Outside]), Culprit::Alone);
    assert_eq!(find(&[WAITS, WAITS]), Culprit::Nobody);
    assert_eq!(find(&[]), Culprit::Alone);
}
