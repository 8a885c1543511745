//! Crash points: named places between two stores, at which a test makes the watchdog die.
//!
//! Nothing of it is there without the feature `crash-points`. Core knows no processes: with the
//! feature, whoever runs it says once what passing a point does (`install`).

/// Passes the point `name`. Costs nothing without the feature.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// Passes the point `name`.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    if let Some(pass) = PASS.get() {
        pass(name);
    }
}

#[cfg(feature = "crash-points")]
static PASS: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Says what passing a point does; the first call counts.
#[cfg(feature = "crash-points")]
pub fn install(pass: fn(&'static str)) {
    // A second server of this process installs the same.
    let _ = PASS.set(pass);
}
