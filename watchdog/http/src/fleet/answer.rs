//! A target's answer: its state as far as the fleet view needs it, or what is wrong with it.
//!
//! A response is untrusted. It is read into a few bounded fields whose texts are safe to print; the rest is
//! dropped.

use serde::{Deserialize, Deserializer};

use crate::state::SCHEMA;
use hangwatch_text::plain_up_to;

/// The longest text that is kept, bytes. A scope name has up to 112, and more with escapes.
const LONGEST_TEXT: usize = 256;

/// The result of asking one target.
pub type Answer = Result<State, TargetError>;

/// Why a target has no state to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The target cannot be reached.
    #[error("down: {0}")]
    Down(String),
    /// The target did not answer in time.
    #[error("slow: {0}")]
    Slow(String),
    /// The target's response is not that of a watchdog.
    #[error("malformed response: {0}")]
    Malformed(String),
    /// The target is a watchdog of another version.
    #[error("other version: it speaks schema {0}, this hangwatch knows {SCHEMA}")]
    OtherVersion(u64),
}

impl TargetError {
    /// Returns its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            TargetError::Down(_) => "down",
            TargetError::Slow(_) => "slow",
            TargetError::Malformed(_) => "lying",
            TargetError::OtherVersion(_) => "other_version",
        }
    }
}

/// A watchdog's state, as far as it is shown.
#[derive(Clone, Debug, Deserialize)]
pub struct State {
    /// The host's name.
    #[serde(deserialize_with = "clean")]
    pub host: String,
    /// Whether the watchdog is healthy.
    pub healthy: bool,
    /// Why it is not healthy.
    #[serde(default, deserialize_with = "clean_or_none")]
    pub reason: Option<String>,
    /// The segments it serves.
    pub segments: Vec<Segment>,
}

/// One segment.
#[derive(Clone, Debug, Deserialize)]
pub struct Segment {
    /// Its name.
    #[serde(deserialize_with = "clean")]
    pub segment: String,
    /// Whether its kill limiter has tripped.
    pub braked: bool,
    /// Its lanes that have an owner.
    pub lanes: Vec<Lane>,
}

/// One lane.
#[derive(Clone, Debug, Deserialize)]
pub struct Lane {
    /// Its owner's pid.
    pub pid: u32,
    /// Its owner's command.
    #[serde(default, deserialize_with = "clean_or_none")]
    pub command: Option<String>,
    /// The job; empty if there is none.
    #[serde(deserialize_with = "clean")]
    pub job: String,
    /// The host name in the owner's namespace.
    #[serde(default, deserialize_with = "clean")]
    pub host: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The number of ranks; 0 if unknown.
    pub world_size: u32,
    /// Whether it is quarantined.
    pub quarantined: bool,
    /// Its timers that are not idle, the innermost first.
    pub timers: Vec<Timer>,
}

/// One timer.
#[derive(Clone, Debug, Deserialize)]
pub struct Timer {
    /// Its scope.
    #[serde(deserialize_with = "clean")]
    pub scope: String,
    /// Its state.
    #[serde(deserialize_with = "clean")]
    pub state: String,
    /// How long ago it was acquired or last kicked, ns.
    pub age_ns: u64,
    /// The time left, ns, negative once overdue; absent while paused.
    pub left_ns: Option<i64>,
}

/// Parses the body of a response.
///
/// # Errors
/// [`TargetError`] if it is not the state of a watchdog of this version.
pub fn read(body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Schema {
        schema: u64,
    }
    let malformed = |error: serde_json::Error| TargetError::Malformed(format!("no state: {error}"));
    // Read first: in another version, the other fields may have any form.
    match serde_json::from_slice(body) {
        Ok(Schema { schema }) if schema == u64::from(SCHEMA) => {
            serde_json::from_slice(body).map_err(malformed)
        }
        Ok(Schema { schema }) => Err(TargetError::OtherVersion(schema)),
        Err(error) => Err(malformed(error)),
    }
}

/// Makes a text safe to print and bounds its length.
pub(super) fn cleaned(text: &str) -> String {
    plain_up_to(text, LONGEST_TEXT).into_owned()
}

fn clean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(cleaned(&String::deserialize(deserializer)?))
}

fn clean_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|text| cleaned(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::WatchdogState;

    fn state() -> WatchdogState {
        WatchdogState {
            schema: SCHEMA,
            host: "gpu-1".into(),
            watchdog_pid: 7,
            version: "0.1.0".into(),
            healthy: true,
            reason: None,
            segments: Vec::new(),
        }
    }

    #[test]
    fn state_is_read() {
        let body = serde_json::to_vec(&state()).unwrap();
        assert_eq!(read(&body).unwrap().host, "gpu-1");
    }

    #[test]
    fn response_without_a_state_is_rejected_with_the_reason() {
        let check = |body: &[u8], kind: &str, part: &str| {
            let trouble = read(body).expect_err(part);
            assert_eq!(trouble.name(), kind, "{trouble}");
            assert!(trouble.to_string().contains(part), "{trouble}");
        };
        check(b"", "lying", "EOF");
        check(b"<html>", "lying", "expected value");
        check(b"[]", "lying", "no state");
        check(b"{\"schema\": 1}", "lying", "missing field");
        check(b"{\"schema\": 2, \"host\": 5}", "other_version", "speaks schema 2");
        check(b"{\"schema\": -1}", "lying", "no state");
        check(
            &[b"{\"schema\": 1, \"a\": ".as_slice(), &b"[".repeat(100_000)].concat(),
            "lying",
            "",
        );
        check(&b"[".repeat(100_000), "lying", "");
        check(&[0xff, 0xfe, 0x00], "lying", "");
    }

    #[test]
    fn texts_are_made_safe_to_print() {
        let rude = WatchdogState {
            host: "a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}b\n".into(),
            reason: Some("x".repeat(10_000)),
            ..state()
        };
        let read = read(&serde_json::to_vec(&rude).unwrap()).unwrap();
        assert_eq!(read.host, "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}b\\n");
        let reason = read.reason.unwrap();
        assert!(reason.ends_with("x\u{2026} (9744 more bytes)"), "{reason}");
    }
}
