//! Many processes at once.

use hangwatch_tests::soak::{self, load};

#[test]
fn many_processes_at_once_miss_no_deadline_and_cost_no_more_with_time() {
    soak::check(&load::PART, 8);
}
