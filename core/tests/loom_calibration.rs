//! The calibration under loom: a worker gets one whole calibration or none.
#![cfg(loom)]

use hangwatch_core::atomic::AtomicU64;
use hangwatch_core::shared::calibration::Calibration;
use hangwatch_core::wire::layout::Geometry;
use hangwatch_core::wire::segment::{Fixed, Segment};
use hangwatch_core::wire::time::Nanos;
use loom::sync::Arc;
use loom::thread;

fn calibration(number: u64) -> Calibration {
    Calibration { counter: number, at: Nanos(10 + number), multiplier: 20 + number }
}

#[test]
fn a_calibration_is_read_whole_or_not_at_all() {
    let fixed = Fixed {
        geometry: Geometry { lanes: 1, timers: 1, records: 16, scopes: 2, lane_scopes: 2 },
        compatible_features: 0,
        incompatible_features: 0,
        boot_id: [0; 2],
        time_namespace: 0,
        incarnation: 0,
        max_interval_ns: 100_000_000,
        created_at: Nanos(0),
    };
    loom::model(move || {
        let size = fixed.geometry.check().unwrap().words();
        let words: Arc<Vec<AtomicU64>> = Arc::new((0..size).map(|_| AtomicU64::new(0)).collect());
        Segment::format(&words, fixed).unwrap().publish_calibration(calibration(1));
        let worker = {
            let words = words.clone();
            thread::spawn(move || {
                if let Some(found) = Segment::open(&words).unwrap().calibration() {
                    assert_eq!(found, calibration(found.counter), "torn");
                }
            })
        };
        let segment = Segment::open(&words).unwrap();
        segment.publish_calibration(calibration(2));
        segment.publish_calibration(calibration(3));
        worker.join().unwrap();
        assert_eq!(segment.calibration(), Some(calibration(3)));
    });
}
