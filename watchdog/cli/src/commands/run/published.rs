//! Publishes the deadlines file of a running watchdog in its segment, again after each SIGHUP.

use std::path::{Path, PathBuf};

use crate::deadlines::{Deadlines, DeadlinesError};
use hangwatch_server::{Server, State};

/// A deadlines file, and what of it is not published yet.
pub(super) struct Published {
    path: PathBuf,
    waiting: Option<Deadlines>,
}

impl Published {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Published, DeadlinesError> {
        Ok(Published { path: path.to_owned(), waiting: Some(Deadlines::read(path)?) })
    }

    /// No file yet.
    pub(super) fn nothing() -> Published {
        Published { path: PathBuf::new(), waiting: None }
    }

    /// Publishes the deadlines. Waits until the server watches: a standby must not override its predecessor.
    pub(super) fn publish(&mut self, server: &Server) {
        if server.health().state != State::Serving {
            return;
        }
        let Some(deadlines) = self.waiting.take() else { return };
        let segment = server.segment();
        let published = deadlines.publish(segment);
        let (name, file) = (segment.name(), self.path.display());
        let (scopes, default_ms) =
            (published.scopes, deadlines.default.map(|time| time.as_millis()));
        tracing::info!(segment = name, event = "deadlines", %file, scopes, default_ms, "deadlines");
        if !published.without_room.is_empty() {
            tracing::error!(
                segment = name,
                event = "deadlines_lost",
                scopes = published.without_room.join(", "),
                "these scopes of the deadlines file do not fit into the segment: create it with more --scopes"
            );
        }
    }

    /// Publishes the new contents of the file, or of another. On errors logs them and changes nothing.
    pub(super) fn renew(&mut self, path: &Path, read: Result<Deadlines, String>, server: &Server) {
        path.clone_into(&mut self.path);
        match read {
            Ok(deadlines) => {
                self.waiting = Some(deadlines);
                self.publish(server);
            }
            Err(error) => {
                let segment = server.segment().name();
                tracing::error!(
                    segment,
                    event = "deadlines_refused",
                    error,
                    "invalid deadlines file; the old deadlines stay in force"
                );
            }
        }
    }
}
