//! Segments in memory of the crate `shared_memory`, and the other way round.
#![expect(unsafe_code, reason = "a look at the mapping of another crate")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hangwatch::{
    CreateError, CreateOptions, Geometry, Lifetime, Observer, OpenError, Released, Segment, Worker,
};
use shared_memory::{Shmem, ShmemConf};

const LONG: Duration = Duration::from_mins(1);

/// A name that is removed at the end.
struct Named(String);

impl Named {
    fn new(test: &str) -> Named {
        Named(format!("test-shmem-{test}-{}", std::process::id()))
    }

    fn shmem(&self, bytes: usize) -> Shmem {
        ShmemConf::new().os_id(Segment::shmem_id(&self.0).unwrap()).size(bytes).create().unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::remove(&self.0);
    }
}

fn options() -> CreateOptions {
    let geometry = Geometry { lanes: 4, timers: 4, records: 16, scopes: 4, lane_scopes: 4 };
    CreateOptions { geometry, ..CreateOptions::default() }
}

fn bytes() -> usize {
    Segment::shmem_bytes(options().geometry).unwrap()
}

#[test]
fn a_worker_attaches_and_is_observed_as_over_a_file() {
    let named = Named::new("worker");
    let segment = Segment::from_shmem(named.shmem(bytes()), options()).unwrap();
    assert_eq!((segment.name(), segment.geometry()), (&*named.0, options().geometry));
    let worker = Worker::attach(&named.0).unwrap();
    let guard = worker.expires("step", LONG).unwrap();
    let seen = Observer::open(&named.0).unwrap().picture().unwrap();
    assert_eq!(seen.lanes[0].timers[0].scope, "step");
    assert_eq!(guard.release(), Released::InTime);
    assert_eq!(
        segment.picture().scopes.iter().map(|scope| scope.counts.released()).sum::<u64>(),
        1
    );
    let again = Segment::open(&named.0).unwrap();
    assert_eq!(again.words().address(), segment.words().address(), "one mapping a process");
}

#[test]
fn a_segment_of_a_file_is_found_by_its_name_and_left_there() {
    let named = Named::new("file");
    let segment = Segment::create(&named.0, options()).unwrap();
    let worker = Worker::attach(&named.0).unwrap();
    let _guard = worker.expires("step", LONG).unwrap();
    let id = Segment::shmem_id(&named.0).unwrap();
    let shmem = ShmemConf::new().os_id(id).open().unwrap();
    assert_eq!(shmem.len(), bytes());
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
    let first = shmem.as_ptr().cast::<AtomicU64>();
    // SAFETY: the first word of a mapping, which is alive.
    let magic = unsafe { (*first).load(Ordering::Relaxed) };
    assert_eq!(magic, segment.words().all()[0].load(Ordering::Relaxed));
    // Taken over, not dropped: it has a descriptor of the file, and this process has locks on it.
    let same = Segment::from_shmem(shmem, CreateOptions::default()).unwrap();
    assert_eq!(same.picture().lanes[0].timers[0].scope, "step");
    assert!(Segment::list().unwrap().contains(&named.0));
}

#[test]
fn memory_that_cannot_be_a_segment_is_refused_and_removed_by_its_owner() {
    let refused = |result: Result<Segment, CreateError>| {
        assert!(matches!(result, Err(CreateError::Shmem { .. })), "{result:?}");
    };
    let named = Named::new("refused");
    refused(Segment::from_shmem(named.shmem(bytes() + 4096), options()));
    let makers = CreateOptions { lifetime: Lifetime::Makers, ..options() };
    refused(Segment::from_shmem(named.shmem(bytes()), makers));
    let foreign = format!("/test-shmem-foreign-{}", std::process::id());
    refused(Segment::from_shmem(
        ShmemConf::new().os_id(foreign).size(bytes()).create().unwrap(),
        options(),
    ));
    assert!(Segment::shmem_id("a/b").is_err());
    let shmem = named.shmem(bytes());
    let opened = Segment::open(&named.0);
    assert!(matches!(opened, Err(OpenError::File { .. })), "not preallocated: {opened:?}");
    drop(shmem);
    assert!(!Segment::list().unwrap().contains(&named.0));
}
