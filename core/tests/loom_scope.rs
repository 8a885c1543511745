//! Interning under loom: a name gets one slot, whoever races for it, and is read whole or not at
//! all.
#![cfg(loom)]

use hangwatch_core::atomic::AtomicU64;
use hangwatch_core::wire::layout::SCOPE_NAME_WORDS;
use hangwatch_core::wire::scope::{ScopeId, ScopeNames};
use loom::sync::Arc;
use loom::thread;

type Slots = Arc<Vec<[AtomicU64; SCOPE_NAME_WORDS]>>;

fn slots(count: usize) -> Slots {
    Arc::new((0..count).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
}

fn intern_elsewhere(slots: &Slots, name: &'static str) -> thread::JoinHandle<ScopeId> {
    let slots = slots.clone();
    thread::spawn(move || ScopeNames(&slots).intern(name).scope)
}

/// Bounded below the default: the 14 words of a name make many interleavings that differ in nothing.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn two_threads_that_intern_one_name_get_one_scope() {
    model(1, || {
        let slots = slots(3);
        let other = intern_elsewhere(&slots, "forward");
        let mine = ScopeNames(&slots).intern("forward").scope;
        assert_eq!(mine, other.join().unwrap());
        assert_eq!(ScopeNames(&slots).taken(), 2);
        assert_eq!(ScopeNames(&slots).name(mine).unwrap().as_str(), "forward");
    });
}

#[test]
fn two_threads_that_intern_two_names_get_two_scopes() {
    model(2, || {
        let slots = slots(3);
        let other = intern_elsewhere(&slots, "forward");
        let mine = ScopeNames(&slots).intern("backward").scope;
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!(ScopeNames(&slots).name(mine).unwrap().as_str(), "backward");
        assert_eq!(ScopeNames(&slots).name(theirs).unwrap().as_str(), "forward");
    });
}

#[test]
fn a_reader_gets_a_whole_name_or_none() {
    model(2, || {
        let slots = slots(2);
        let reader = {
            let slots = slots.clone();
            thread::spawn(move || {
                if let Some(name) = ScopeNames(&slots).name(ScopeId(1)) {
                    assert_eq!(name.as_str(), "forward");
                }
            })
        };
        ScopeNames(&slots).intern("forward");
        reader.join().unwrap();
    });
}
