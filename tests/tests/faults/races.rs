//! Releases against expiry.

use hangwatch_tests::soak::{self, races};

#[test]
fn every_acquire_ends_exactly_once_when_its_release_races_its_expiry() {
    soak::check(&races::PART, 8_000);
}
