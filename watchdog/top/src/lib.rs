//! `hangwatch top`: the live view of a segment, which it only reads.
//!
//! ```text
//!   segment --> source --> model --> draw --> terminal
//!                            ^                   |
//!                            +------- keys ------+
//! ```
//!
//! * `source` finds the segment, through a read-only [`hangwatch::Observer`], and takes the pictures;
//!   `incidents` knows what has become of workers before.
//! * `model` is what is shown and how; `row` one lane of it.
//! * `draw` makes a frame of it, with `table`, `detail`, `help`, `theme` and `text`.
//! * `terminal` takes the terminal and gives it back.

mod detail;
mod draw;
mod help;
mod incidents;
mod model;
mod row;
#[cfg(test)]
mod sample;
mod source;
mod table;
mod terminal;
mod text;
mod theme;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use self::draw::Memory;
use self::incidents::Incidents;
use self::model::{Asked, Model, Motion, Place};
use self::source::Source;
pub use self::terminal::TerminalError;

use self::terminal::Screen;
use self::theme::Theme;
use hangwatch_process::relay::Relay;

/// What ends the view, stops it, or changes the terminal under it.
const SIGNALS: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::TSTP,
    Signal::CONT,
    Signal::WINCH,
];

/// How the view ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The user quit.
    Quit,
    /// This signal arrived.
    Signal(u8),
}

/// Why the view cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is no terminal for it.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The terminal, or a signal, cannot be read.
    #[error("the terminal is gone: {0}")]
    Io(#[from] io::Error),
}

/// Shows the segment, or whichever there are, until told to end.
///
/// `incidents` is the directory of those there were, where there is one.
///
/// # Errors
/// [`TopError`].
pub fn run(
    segment: Option<String>,
    interval: Duration,
    incidents: Option<PathBuf>,
) -> Result<End, TopError> {
    let theme = Theme::of_environment(|name| std::env::var(name).ok());
    let screen = Screen::take()?;
    let relay = Relay::install_only(&SIGNALS)?;
    let (source, model, memory) = (Source::new(segment), Model::new(), Memory::default());
    let incidents = Incidents::follow(incidents);
    View { screen, relay, source, incidents, model, memory, theme, interval }.run()
}

struct View {
    screen: Screen,
    relay: Relay,
    source: Source,
    incidents: Incidents,
    model: Model,
    memory: Memory,
    theme: Theme,
    interval: Duration,
}

impl View {
    fn run(mut self) -> Result<End, TopError> {
        let mut look_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= look_at {
                self.look();
                look_at = now + self.interval;
            }
            let (model, memory, theme) = (&mut self.model, &mut self.memory, self.theme);
            self.screen.draw(|frame| draw::draw(frame, model, memory, theme))?;
            self.wait_until(look_at)?;
            if let Some(exit) = self.take_signals()? {
                return Ok(exit);
            }
            if let Some(exit) = self.take_keys()? {
                return Ok(exit);
            }
        }
    }

    fn look(&mut self) {
        if self.model.motion == Motion::Live || !matches!(self.model.place, Place::Watching(_)) {
            let mut place = self.source.look(self.model.wanted_detail());
            if let Place::Watching(seen) = &mut place {
                let now = SystemTime::now(); // incidents are told by the wall clock
                for row in &mut seen.rows {
                    row.incident = self.incidents.of(&seen.segment, &row.lane, now);
                }
            }
            self.model.show(place);
        } else if let Some(lane) = self.model.wanted_detail()
            && let Place::Watching(seen) = &mut self.model.place
            && seen.detail.as_ref().is_none_or(|detail| detail.lane != lane)
        {
            // The picture stands still, but may be looked into.
            seen.detail = self.source.detail(lane, &seen.rows);
        }
    }

    /// Waits for a key, a signal, or the time of the next look.
    fn wait_until(&self, look_at: Instant) -> io::Result<()> {
        let timeout = look_at.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let stdin = io::stdin();
        let mut polled = [
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.relay.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let hung_up = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if polled[0].revents().intersects(hung_up) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
        }
        Ok(())
    }

    fn take_signals(&mut self) -> Result<Option<End>, TopError> {
        while let Some(caught) = self.relay.next()? {
            match caught.signal {
                Signal::WINCH => {} // the next frame is of the new size
                Signal::TSTP => self.screen.suspend()?,
                Signal::CONT => self.screen.resume()?,
                other => return Ok(Some(End::Signal(other.as_raw().unsigned_abs() as u8))),
            }
        }
        Ok(None)
    }

    fn take_keys(&mut self) -> Result<Option<End>, TopError> {
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match self.model.press(key) {
                Asked::Nothing => {}
                Asked::Quit => return Ok(Some(End::Quit)),
                Asked::Suspend => self.screen.suspend()?,
                Asked::Redraw => self.screen.clear()?,
                Asked::Look => self.look(),
                Asked::Watch(name) => {
                    self.source.watch(name);
                    self.look_anew();
                }
                Asked::Choose => {
                    self.source.choose();
                    self.look_anew();
                }
            }
        }
        Ok(None)
    }

    /// Looks at another segment: what was seen of the last one says nothing of it.
    fn look_anew(&mut self) {
        self.model.place = Place::Waiting(String::new());
        self.model.selected = None;
        self.look();
    }
}
